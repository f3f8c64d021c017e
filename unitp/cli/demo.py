"""`unitp demo`, which `make demo` runs: SmolLM2 on 2 ranks of every installed backend, with the plan, texts and verdicts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.compare import print_comparison
from unitp.cli.generate import tokens_option
from unitp.cli.options import Settings, backends_option, complete_model, json_option, launch_options, options
from unitp.cli.output import PROSE, print_json, progress, remark, say
from unitp.config import python_of
from unitp.errors import BackendError

if TYPE_CHECKING:
    from unitp.certificate import CertifiedPlan
    from unitp.comparison.compare import Comparison
    from unitp.graph.graph import Graph

ORDER = ("numpy", "torch", "tensorflow", "mxnet")
PROMPT = "The capital of France is"
CONTEXT = 512
RANKS = 2


@click.command("demo")
@click.option(
    "--model",
    default="smollm2-135m",
    show_default=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="Another model than SmolLM2.",
)
@options(backends_option, launch_options)
@tokens_option(32)
@json_option
def command(
    model: str, backends: tuple[str, ...], max_new_tokens: int, as_json: bool, verbose: bool, **flags: Any
) -> None:
    """Run SmolLM2 on 2 ranks of every installed backend: the plan, what each one writes, and which agree.

    Exit code 1 if one disagrees.
    """
    from unitp.api import plan
    from unitp.comparison.compare import as_json as plain
    from unitp.comparison.compare import compare
    from unitp.frontends import load
    from unitp.mesh import Mesh
    from unitp.plugins.discover import backend as find

    settings = Settings(verbose=verbose, **flags)
    names = tuple(find(name).name for name in dict.fromkeys(backends)) or usable(settings)
    with progress() as tell:
        tell(f"loading and planning {model}")
        loaded = load(model)
        made = plan(loaded, Mesh(tp=RANKS))
    if not as_json:
        print_plan(made, loaded.graph)
    with progress() as tell:
        found = compare(
            loaded,
            made,
            names,
            prompt=PROMPT,
            max_new_tokens=max_new_tokens,
            context=CONTEXT,
            say=tell,
            launch_options=settings.launch_options,
        )
    if as_json:
        print_json(plain(found))
    else:
        print_texts(found)
        print_comparison(found)
    sys.exit(0 if found.agree else 1)


def usable(settings: Settings) -> tuple[str, ...]:
    """Return the backends whose frameworks are installed, the best known first; for the others, print how to install them.

    Raises BackendError if no framework is installed.
    """
    from unitp.plugins.discover import backends, missing

    known = backends()
    found = []
    for name in (*ORDER, *sorted(set(known) - set(ORDER))):
        if name not in known:
            continue
        if not python_of(name, settings.all) and missing(known[name], RANKS):
            remark(f"{name} is not installed; run {known[name].install}")
        else:
            found.append(name)
    if not found:
        raise BackendError("no backend is installed", hint="`unitp doctor` tells what is missing.")
    return tuple(found)


def print_plan(plan: CertifiedPlan, graph: Graph) -> None:
    """Print the plan in a few lines: what is split, and what moves."""
    from unitp.explain.description import describe

    certificate, description = plan.certificate, describe(plan, graph)
    about = f"gap {certificate.gap:.1%} to the best, planned in {certificate.elapsed_s:.2f} s"
    say((plan.model, "bold"), f" on {plan.mesh.size} ranks, {about}")
    for row in (*description.parameters, *description.states):
        if row.layout != "replicated":
            say(f"  {row.count:3} x {row.what:24} {row.layout}")
    for move in description.moves:
        say(f"  {move.phase}: {move.count} {move.kind} over {move.axis}")


def print_texts(found: Comparison) -> None:
    """Print the first text (or the first tokens) of every backend."""
    for name, verdict in found.backends.items():
        text = verdict.texts[0] if verdict.texts else " ".join(map(str, verdict.tokens[0]))
        say((name, "bold"), f": {PROMPT}", (text, "cyan"), keep=PROSE)
