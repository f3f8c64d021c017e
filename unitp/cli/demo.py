"""`unitp demo`: what `make demo` runs. SmolLM2 on 2 ranks of every installed backend: the plan, the texts, who agrees."""

from __future__ import annotations

import sys

import rich_click as click

from unitp.cli.compare import print_comparison
from unitp.cli.options import json_option
from unitp.cli.output import console, print_json, progress
from unitp.comparison.compare import Comparison, compare
from unitp.comparison.compare import as_json as plain
from unitp.mesh import Mesh
from unitp.planner.explain import describe
from unitp.plugins.discover import backends, missing

ORDER = ("numpy", "torch", "tensorflow", "mxnet")
PROMPT = "The capital of France is"


@click.command("demo")
@click.option("--model", default="smollm2-135m", show_default=True)
@json_option
def command(model: str, as_json: bool) -> None:
    """SmolLM2 on 2 ranks of every installed backend: the plan, what each one writes, and who agrees."""
    from unitp.api import plan
    from unitp.frontends import load

    with progress(f"loading and planning {model}"):
        loaded = load(model)
        made = plan(loaded, Mesh(tp=2))
        description = describe(made, loaded.graph)
    if not as_json:
        out = console()
        out.print(
            f"[bold]{model}[/bold] on 2 ranks, gap {made.certificate.gap:.1%} to the best, planned in {made.certificate.elapsed_s:.2f} s",
            highlight=False,
        )
        for row in (*description.parameters, *description.states):
            if row.layout != "replicated":
                out.print(f"  {row.count:3} x {row.what:24} {row.layout}", highlight=False)
        for move in description.moves:
            out.print(f"  {move.phase}: {move.count} {move.kind} over {move.axis}", highlight=False)
    known = backends()
    names = [n for n in (*ORDER, *sorted(set(known) - set(ORDER))) if n in known and not list(missing(known[n], 2))]
    with progress("comparing") as say:
        found = compare(loaded, made, names, prompt=PROMPT, context=512, say=say)
    if as_json:
        print_json(plain(found))
    else:
        _texts(found)
        print_comparison(found)
    sys.exit(0 if found.agree else 1)


def _texts(found: Comparison) -> None:
    for name, verdict in found.backends.items():
        console().print(f"[bold]{name}[/bold]: {PROMPT}[cyan]{verdict.texts[0]}[/cyan]", highlight=False)
