"""Options that several verbs share, and how they become values. All faults of a request are found before ranks start."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click.shell_completion import CompletionItem

from unitp.config import Setting, python_of, settings
from unitp.errors import InputError, MeshError, PlanError, did_you_mean
from unitp.host import writing
from unitp.mesh import Mesh
from unitp.texts import cut

if TYPE_CHECKING:
    from unitp.certificate import CertifiedPlan
    from unitp.cost import Machine
    from unitp.frontends.model import Model
    from unitp.plans import Phase
    from unitp.session.session import Session

F = TypeVar("F", bound=Callable[..., Any])

AXES = ("dp", "tp")
MOST_TOKENS = 1 << 24
"""Of a prompt that is made up, and of what follows it."""


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from unitp.plugins.discover import backends

    return [name for name in backends() if name.startswith(incomplete)]


def complete_transport() -> list[str]:
    from unitp.plugins.transports import names

    return list(names())


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completions: models known by name, else files."""
    from unitp.frontends.known_models import names

    found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_machine(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completions: profiles, else files."""
    from unitp.cost.machine_file import profiles

    found = [CompletionItem(name) for name in profiles() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


model_argument = click.argument("model", shell_complete=complete_model)
plan_argument = click.argument("plan_file", metavar="PLAN", type=click.Path())
mesh_option = click.option("--mesh", metavar="AXES", help="Axes and their sizes, as in dp=1,tp=2.")
machine_option = click.option(
    "--machine",
    metavar="NAME|FILE",
    shell_complete=complete_machine,
    help="The machine to price for: a profile (`unitp machines` lists them) or a TOML file.",
)
backend_option = click.option(
    "--backend", metavar="NAME", shell_complete=complete_backend, help="The backend that runs it."
)
backends_option = click.option(
    "--backend",
    "backends",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_backend,
    help="A backend; give it once for each.",
)
dtype_option = click.option(
    "--dtype", metavar="DTYPE", shell_complete=lambda *_: ["float32", "float64"], help="float32, or float64 to check."
)
weights_option = click.option(
    "--weights",
    metavar="DTYPE",
    shell_complete=lambda *_: ["float32", "bfloat16", "float16"],
    help="What weights are stored in: float32, or bfloat16 or float16, which take half the memory. Default: float32.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
context_option = click.option(
    "--context",
    type=int,
    metavar="TOKENS",
    help="Tokens that the caches hold per sequence. Default: the model's, at most 2048.",
)
plan_option = click.option(
    "--plan", "plan_file", type=click.Path(), metavar="FILE", help="A plan file; its mesh is used."
)
unused_option = click.option("--allow-unused", is_flag=True, help="Allow axes over which nothing can be split.")
threads_option = click.option("--threads", type=int, metavar="N", help="Threads of each rank. Default: 1.")
port_option = click.option("--port", type=int, metavar="N", help="The first port that ranks use. Default: free ones.")
isolation_option = click.option(
    "--isolation",
    metavar="MODE",
    shell_complete=lambda *_: ["auto", "require", "off"],
    help="Whether nothing outside reaches the ranks: auto (where the host can), require or off. Default: auto.",
)
transport_option = click.option(
    "--transport",
    metavar="NAME",
    shell_complete=lambda *_: complete_transport(),
    help="What carries the ranks' collectives: native (the framework's own runtime), mpi, or auto. Default: auto.",
)
stall_option = click.option(
    "--stall-s", type=float, metavar="SECONDS", help="How long without progress a rank counts as stuck. Default: 120."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show what ranks print, each line with its rank.")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """A decorator that adds several options in this order."""

    def apply(function: F) -> F:
        return reduce(lambda f, decorate: decorate(f), reversed(decorators), function)

    return apply


def token_options(*, new: int, least: int) -> tuple[Callable[[F], F], ...]:
    """Options for the length of prompts and the number of tokens made after them: by default `new`, and `least` at least."""

    def count(flag: str, default: int, least: int, says: str) -> Callable[[F], F]:
        kind = click.IntRange(least, MOST_TOKENS)
        return click.option(flag, type=kind, default=default, show_default=True, metavar="N", help=says)

    return (
        count("--prompt-tokens", 256, 1, "How long each prompt is."),
        count("--new-tokens", new, least, "How many tokens are made after it."),
    )


launch_options = options(threads_option, port_option, isolation_option, transport_option, stall_option, verbose_option)
running_options = options(
    mesh_option,
    machine_option,
    plan_option,
    dtype_option,
    weights_option,
    context_option,
    unused_option,
    launch_options,
)


def parse_mesh(text: str) -> Mesh:
    """A mesh from a text like `tp=2`. Raises MeshError for axes that the planner does not know."""
    mesh = Mesh.parse(text)
    for axis, _ in mesh.axes:
        if axis not in AXES:
            raise MeshError(f'unknown axis "{axis}" in mesh "{text}"', hint=did_you_mean(axis, AXES))
    return mesh


def read_machine(text: str | None) -> Machine | None:
    """The machine of a profile or file, or None if none is named."""
    from unitp.cost.machine_file import load_machine

    return load_machine(text) if text else None


def parse_phase(text: str) -> Phase:
    """Return the phase that a text like `decode:batch=1,seq=1,cache=1024,weight=200` describes.

    Raises InputError for a text of another form, and for sizes or a weight that no phase can have.
    """
    from unitp.plans import Phase, phase_problem

    name, colon, rest = text.partition(":")
    sizes: dict[str, int] = {}
    weight = 1.0
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        try:
            if key == "weight":
                weight = float(value)
            else:
                sizes[key] = int(value)
        except ValueError:
            raise InputError(f'cannot read phase "{cut(text)}": "{cut(part)}" is not NAME=NUMBER') from None
    found = Phase(name, sizes, weight)
    if not colon or not name or (problem := phase_problem(found)):
        hint = "Write it as in decode:batch=1,seq=1,cache=1024,weight=200."
        raise InputError(f'cannot read phase "{cut(text)}"{f": {problem}" if colon and name else ""}', hint=hint)
    return found


def writable(path: str) -> Path:
    """A path to write results to, checked before the work starts.

    Raises InputError if its folder is missing, if it is a folder itself, or if there is no permission.
    """
    found = Path(path)
    with writing(path):  # a name that is too long
        if found.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if not found.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {found.parent}")
    if not os.access(found if found.exists() else found.parent, os.W_OK):
        raise InputError(f"cannot write {path}: there is no permission")
    return found


class Settings:
    """The flags, the environment and `unitp.toml`, as values and as options of `unitp.launch`."""

    def __init__(self, *, verbose: bool = False, **flags: Any) -> None:
        self.all: dict[str, Setting] = settings(flags)
        self.verbose = verbose

    def value(self, name: str) -> Any:
        return self.all[name].value

    def launch_options(self, backend: str) -> dict[str, Any]:
        """The options of `unitp.launch` for a backend."""
        from unitp.ranks.limits import Limits

        transport = self.all["transport"]
        return {
            "python": python_of(backend, self.all),
            "port": self.value("port"),
            "threads": self.value("threads"),
            "isolation": self.value("isolation"),
            "transport": None if transport.origin == "default" else str(transport.value),
            "limits": Limits(stall_s=self.value("stall_s")),
            "verbose": self.verbose,
        }


class Request:
    """A model, its plan and settings, from the flags of a verb that runs something."""

    def __init__(self, model: str, *, plan_file: str | None, allow_unused: bool, verbose: bool, **flags: Any) -> None:
        from dataclasses import replace

        from unitp.frontends import load
        from unitp.graph.stored import as_planned
        from unitp.graph.weights import require_weights

        self.settings = Settings(verbose=verbose, **flags)
        self.model: Model = load(model)
        require_weights(self.model.graph)
        self.plan = self._plan(plan_file, flags["mesh"], flags.get("weights"), allow_unused)
        self.model = replace(self.model, graph=as_planned(self.model.graph, self.plan.graph))

    def _plan(self, plan_file: str | None, mesh: str | None, weights: str | None, allow_unused: bool) -> CertifiedPlan:
        """The plan in a file, or a new one for the mesh of the settings. Raises PlanError if file and flags contradict."""
        from unitp import plans
        from unitp.api import plan
        from unitp.graph.stored import as_planned, stored, stored_in
        from unitp.plan_file import load

        if plan_file is None:
            machine = read_machine(self.value("machine"))
            on = parse_mesh(self.value("mesh"))
            kept = str(self.value("weights"))
            return plan(self.model, on, allow_unused=allow_unused, machine=machine, weights=kept)
        found = load(plan_file)
        graph = as_planned(self.model.graph, found.graph)
        plans.require(found, graph)
        if weights is not None and stored(self.model.graph, weights).hash != found.graph:
            kept = " and ".join(stored_in(graph)) or "float32"
            raise PlanError(
                f"{plan_file} is for weights in {kept}, --weights is {weights}", hint="Leave out --weights."
            )
        if mesh is not None and parse_mesh(mesh) != found.mesh:
            raise PlanError(f"{plan_file} is for {found.mesh}, --mesh is {mesh}", hint="Leave out --mesh.")
        return found

    def value(self, name: str) -> Any:
        return self.settings.value(name)

    @property
    def backend(self) -> str:
        return str(self.value("backend"))

    @property
    def dtype(self) -> str:
        return str(self.value("dtype"))

    @property
    def context(self) -> int | None:
        return int(self.value("context")) or None

    @cached_property
    def batch(self) -> int:
        """The least number of prompts that the mesh allows."""
        return self.plan.mesh.sizes.get("dp", 1)

    def require_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise InputError if these token ids cannot run: none, too many, out of range, or fewer prompts than `dp`."""
        from unitp.session.decoder import is_decoder, require_prompts, require_tokens
        from unitp.session.launch import context_of

        graph = self.model.graph
        if not is_decoder(graph):
            raise InputError(f"{self.model.name} is not a language model")
        if not prompts:
            raise InputError("no prompt is given", hint="Give --prompt or --prompt-ids.")
        require_tokens(prompts, int(graph.types["logits"].shape[-1]), context_of(graph, self.context))
        require_prompts(len(prompts), self.plan.mesh)

    def require_inputs(self, arrays: Mapping[str, Any]) -> None:
        """Raise InputError if the graph cannot run on these arrays."""
        from unitp.session.decoder import is_decoder
        from unitp.session.inputs import bind, token_rows

        if is_decoder(self.model.graph) and set(arrays) == {"input_ids"}:
            self.require_prompts(token_rows(arrays["input_ids"]))
        else:
            bind(self.model.graph, arrays)

    def launch(self, say: Callable[[str], None], sequences: int = 1) -> Session:
        """A session that can have this many sequences open at once."""
        from unitp.session.capacity import enough_for
        from unitp.session.launch import launch

        chosen = self.settings.launch_options(self.backend) | {"sequences": enough_for(sequences)}
        return launch(self.model, self.plan, self.backend, dtype=self.dtype, context=self.context, say=say, **chosen)
