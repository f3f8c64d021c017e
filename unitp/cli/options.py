"""Options that several verbs share, and how they become values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar

import rich_click as click

from unitp.config import Setting, python_of, settings
from unitp.errors import InputError, MeshError, did_you_mean
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.plans import Phase, Plan
from unitp.runtime.session import Session

F = TypeVar("F", bound=Callable[..., Any])

AXES = ("dp", "tp")


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from unitp.plugins.discover import backends

    return [name for name in backends() if name.startswith(incomplete)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from unitp.frontends.registry import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)]


model_argument = click.argument("model", shell_complete=complete_model)
mesh_option = click.option("--mesh", help="Axes and sizes, as in dp=1,tp=2.")
backend_option = click.option("--backend", shell_complete=complete_backend, help="The backend that runs it.")
dtype_option = click.option("--dtype", help="float32 or float64.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
context_option = click.option("--context", type=int, help="Tokens that the caches hold per sequence.")
plan_option = click.option("--plan", "plan_file", type=click.Path(), help="A plan file, instead of --mesh.")
unused_option = click.option("--allow-unused", is_flag=True, help="Allow axes over which nothing can be split.")
threads_option = click.option("--threads", type=int, help="Threads of each rank.")
port_option = click.option("--port", type=int, help="The first port that ranks use.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show what ranks print, each line with its rank.")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order."""

    def apply(function: F) -> F:
        return reduce(lambda f, decorate: decorate(f), reversed(decorators), function)

    return apply


running_options = options(
    mesh_option, plan_option, dtype_option, context_option, threads_option, port_option, unused_option, verbose_option
)


def parse_mesh(text: str) -> Mesh:
    """A mesh of axes that the planner knows. Raises MeshError for others."""
    mesh = Mesh.parse(text)
    for axis, _ in mesh.axes:
        if axis not in AXES:
            raise MeshError(f'unknown axis "{axis}" in mesh "{text}"', hint=did_you_mean(axis, AXES))
    return mesh


def parse_phase(text: str) -> Phase:
    """`decode:batch=1,seq=1,cache=1024,weight=200`; `live`, `take` and `candidates` follow where they are left out."""
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
            raise InputError(f'cannot read phase "{text}": "{part}" is not NAME=NUMBER') from None
    if not colon or not name or any(n < 1 for n in sizes.values()) or weight < 0:
        hint = "Write it as in decode:batch=1,seq=1,cache=1024,weight=200."
        raise InputError(f'cannot read phase "{text}"', hint=hint)
    if "cache" in sizes:
        sizes = {"live": sizes["cache"], "take": 1, "candidates": 1, **sizes}
    return Phase(name, sizes, weight)


def get_plan(
    model: Model, mesh: str, plan_file: str | None, allow_unused: bool, phases: Sequence[Phase] | None = None
) -> Plan:
    """The plan from a file, or a new one for `mesh`."""
    from unitp.api import plan
    from unitp.plans import load

    if plan_file:
        return load(plan_file)
    return plan(model, parse_mesh(mesh), phases, allow_unused=allow_unused)


class Request:
    """A model, its plan and settings, as the flags of a verb that runs something ask for them."""

    def __init__(
        self, model: str, mesh: str | None, plan_file: str | None, dtype: str | None, context: int | None, threads: int | None,
        port: int | None, allow_unused: bool, verbose: bool, backend: str | None = None,
    ) -> None:  # fmt: skip
        from unitp.frontends import load

        given = {"backend": backend, "mesh": mesh, "dtype": dtype, "context": context, "threads": threads, "port": port}
        self.settings: dict[str, Setting] = settings(given)
        self.verbose = verbose
        self.model = load(model)
        self.plan = get_plan(self.model, str(self.value("mesh")), plan_file, allow_unused)

    def value(self, name: str) -> Any:
        return self.settings[name].value

    def launch(self, backend: str | None = None) -> Session:
        from unitp.plugins.discover import backend as find
        from unitp.runtime.launch import launch
        from unitp.runtime.watchdog import Limits

        name = backend or str(self.value("backend"))
        limits = Limits(start_s=find(name).start_limit_s, stall_s=float(self.value("stall_s")))
        return launch(
            self.model,
            self.plan,
            name,
            dtype=str(self.value("dtype")),
            context=int(self.value("context")) or None,
            python=python_of(name, self.settings),
            port=int(self.value("port")),
            threads=int(self.value("threads")),
            limits=limits,
            verbose=self.verbose,
        )
