"""`unitp show`: what a plan splits and how, over which ranks, what moves, and predicted costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from unitp.cli.options import json_option, machine_option, options, plan_argument, read_machine, writable
from unitp.cli.output import mebibytes, print_json, print_table, remark, say, table
from unitp.errors import ModelError

if TYPE_CHECKING:
    from unitp.certificate import Certificate, CertifiedPlan, Unused
    from unitp.explain.description import Description, Whole
    from unitp.graph.graph import Graph
    from unitp.program.memory import Memory

model_option = click.option("--model", metavar="MODEL", help="The plan's model, where it is not known by name.")


@click.command("show")
@plan_argument
@options(model_option, machine_option)
@click.option("--html", "page", type=click.Path(), metavar="FILE", help="Write a page with pictures of the plan, too.")
@json_option
def command(plan_file: str, model: str | None, machine: str | None, page: str | None, as_json: bool) -> None:
    """Show what a plan splits and how, over which ranks, what moves, and predicted costs.

    Costs are for the machine that the plan was made for, or for --machine.
    """
    from unitp.explain.description import describe
    from unitp.plan_file import load

    path = writable(page) if page else None
    plan, priced_on = load(plan_file), read_machine(machine)
    graph = known_graph(plan, model) if path or priced_on else graph_of(plan, model)
    description = describe(plan, graph, priced_on)
    if path and graph:
        from unitp.report import html

        html.save(plan, graph, path, priced_on)
    if as_json:
        print_json(
            {"certificate": plan.certificate, "model": plan.model, "graph": plan.graph, "description": description}
            | ({"html": page} if page else {})
        )
        return
    print_description(plan, description)
    if page:
        say(f"drawn in {page}")
    if graph is None:
        remark("What moves is shown where the model is given (--model).")


def graph_of(plan: CertifiedPlan, model: str | None) -> Graph | None:
    """The graph of a plan's model, or None if it cannot be found by name and none is given."""
    from unitp import plans
    from unitp.frontends import load as load_model
    from unitp.frontends.configs import CONFIGS
    from unitp.graph.stored import as_planned

    if not (name := model or plan.model):
        return None
    try:
        graph = as_planned(load_model(name).graph, plan.graph)
    except ModelError:
        if model:
            raise
        return None
    if not model and name in CONFIGS and graph.hash != plan.graph:
        return None  # a folder of that name, with a config of its own
    plans.require(plan, graph)
    return graph


def known_graph(plan: CertifiedPlan, model: str | None) -> Graph:
    """The graph of a plan's model. Raises ModelError if it cannot be found."""
    if (graph := graph_of(plan, model)) is None:
        raise ModelError(
            f'the plan\'s model "{plan.model}" is not known by name', hint="Say where it is with --model MODEL."
        )
    return graph


def _quality(certificate: Certificate) -> str:
    """What was minimised, and how near the plan is to the minimum."""
    if certificate.bound_bytes:
        return (
            f"memory {mebibytes(certificate.peak_bytes)} per rank, bound {mebibytes(certificate.bound_bytes)}, "
            f"gap {certificate.gap:.2%}; objective {certificate.objective_s:.3f} s"
        )
    return (
        f"objective {certificate.objective_s:.3f} s, bound {certificate.lower_bound_s:.3f} s, gap {certificate.gap:.2%}"
    )


def _memory(certificate: Certificate, needs: Sequence[Memory]) -> str:
    """The memory of the rank that needs most, by what it is for."""
    rank, most = max(enumerate(needs), key=lambda item: item[1].peak)
    limit = f", limit {mebibytes(certificate.memory_limit)}" if certificate.memory_limit else ""
    return (
        f"memory {mebibytes(most.peak)} on rank {rank} (weights {mebibytes(most.parameters)}, caches {mebibytes(most.states)}, "
        f"live {mebibytes(most.activations)} in {most.phase}){limit}"
    )


def print_description(plan: CertifiedPlan, description: Description) -> None:
    """Print the plan in a few tables."""
    from unitp.explain.description import devices_text, ranks

    certificate = plan.certificate
    say((plan.model or "plan", "bold"), f" on {description.mesh} ({ranks(plan.mesh)})")
    if description.machine or description.devices:
        classes = f" ({devices_text(description.devices)})" if description.devices else ""
        say(f"machine {description.machine}{classes}")
    if description.repriced:
        say(f"objective {description.objective_s:.3f} s there; the plan was made for machine {certificate.machine}")
    else:
        print_certificate(certificate)
    if description.memory:
        say(_memory(certificate, description.memory))
    for pin in certificate.pins:
        say(f"pinned {pin}")
    for line in (*map(unused_text, description.unused), *whole_texts(description.whole)):
        say(line)
    placed = table(">count", "tensors", "layout")
    for row in (*description.parameters, *description.states):
        placed.add(str(row.count), row.what, row.layout)
    print_table(placed)
    moves = table("phase", "predicted", ">calls", "collective", "over", ">bytes per rank")
    for phase, seconds in description.seconds.items():
        rows = [m for m in description.moves if m.phase == phase]
        for number, move in enumerate(rows):
            first = (phase, f"{seconds * 1e3:.1f} ms") if number == 0 else ("", "")
            moves.add(*first, str(move.count), move.kind, move.axis, f"{move.bytes:,}")
        if not rows:
            moves.add(phase, f"{seconds * 1e3:.1f} ms", "0", "", "", "")
    print_table(moves)


def print_certificate(certificate: Certificate) -> None:
    """Print how good the plan is."""
    say(f"{_quality(certificate)} ({certificate.solver}, {certificate.elapsed_s:.2f} s)")
    if certificate.held_bytes:
        say(held_text(certificate))


def held_text(certificate: Certificate) -> str:
    """What a rank holds, what that costs, and the least it could hold."""
    parts = [f"holds {mebibytes(certificate.held_bytes)} of weights and caches per rank on average"]
    if certificate.objective_s > certificate.fastest_s > 0.0:
        parts.append(
            f"{certificate.objective_s / certificate.fastest_s - 1:.3%} slower than the fastest plan, to hold less"
        )
    if certificate.held_bound_bytes:
        parts.append(f"no plan as fast within 0.1% holds less than {mebibytes(certificate.held_bound_bytes)}")
    return "; ".join(parts)


def unused_text(unused: Unused) -> str:
    """Why an axis does nothing: the times of the plan that uses it, beside those of this one."""
    calls = ", ".join(f"{phase} {seconds * 1e3:.1f} ms" for phase, seconds in unused.seconds.items())
    return (
        f"{unused.axis} is left unused by {' and '.join(unused.phases)}, which is faster: with every product split over it, "
        f"the objective is {unused.objective_s:.3f} s ({calls} a call)"
    )


def whole_texts(rows: Sequence[Whole]) -> Iterator[str]:
    """One line for each phase and axis, about the products that are not split over it."""
    for phase, axis in dict.fromkeys((row.phase, row.axis) for row in rows):
        found = [row for row in rows if (row.phase, row.axis) == (phase, axis)]
        what = ", ".join(f"{row.what} ({row.count})" for row in found)
        count = sum(row.count for row in found)
        yield f"{phase} does not split {count} of {found[0].of} products over {axis}: {what}"
