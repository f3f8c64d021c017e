"""`unitp show`: what a plan splits and how, over which ranks, what moves, and predicted costs."""

from __future__ import annotations

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import console, print_json, table
from unitp.errors import ModelError
from unitp.planner.explain import Description, describe, ranks
from unitp.plans import Plan, load


@click.command("show")
@click.argument("plan_file", type=click.Path())
@click.option("--model", help="The plan's model, if it is not known by name.")
@json_option
def command(plan_file: str, model: str | None, as_json: bool) -> None:
    """What a plan splits and how, over which ranks, what moves, and predicted costs."""
    plan = load(plan_file)
    description = describe(plan, graph_of(plan, model))
    if as_json:
        print_json(
            {"certificate": plan.certificate, "model": plan.model, "graph": plan.graph, "description": description}
        )
    else:
        print_description(plan, description)


def graph_of(plan: Plan, model: str | None):  # type: ignore[no-untyped-def]  # Graph | None: the class is not needed here
    """The graph of a plan's model; None where it cannot be found by name and none is given."""
    from unitp.errors import PlanError
    from unitp.frontends import load as load_model

    try:
        graph = load_model(model or plan.model).graph
    except ModelError:
        if model:
            raise
        return None
    if graph.hash != plan.graph:
        raise PlanError(f"the plan was made for another graph ({plan.graph}, {model or plan.model} is {graph.hash})")
    return graph


def print_description(plan: Plan, description: Description) -> None:
    """The plan in a few tables."""
    out, certificate = console(), plan.certificate
    out.print(f"[bold]{plan.model or 'plan'}[/bold] on {description.mesh} ({ranks(plan.mesh)})", highlight=False)
    out.print(
        f"objective {certificate.objective_s:.3f} s, bound {certificate.lower_bound_s:.3f} s, gap {certificate.gap:.2%} "
        f"({certificate.solver}, {certificate.elapsed_s:.2f} s)",
        highlight=False,
    )
    placed = table(">count", "tensors", "layout")
    for row in (*description.parameters, *description.states):
        placed.add_row(str(row.count), row.what, row.layout)
    out.print(placed)
    moves = table("phase", "predicted", ">calls", "collective", "over", ">bytes per rank")
    for phase, seconds in description.seconds.items():
        rows = [m for m in description.moves if m.phase == phase]
        for number, move in enumerate(rows):
            first = (phase, f"{seconds * 1e3:.1f} ms") if number == 0 else ("", "")
            moves.add_row(*first, str(move.count), move.kind, move.axis, f"{move.bytes:,}")
        if not rows:
            moves.add_row(phase, f"{seconds * 1e3:.1f} ms", "0", "", "", "")
    out.print(moves)
