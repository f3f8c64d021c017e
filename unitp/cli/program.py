"""`unitp program`: the instructions of each rank, as text."""

from __future__ import annotations

import sys

import rich_click as click

from unitp.cli.options import json_option, parse_phase, plan_argument
from unitp.cli.output import print_json
from unitp.cli.show import graph_of, model_option
from unitp.errors import InputError, ModelError
from unitp.texts import shown


@click.command("program")
@plan_argument
@click.option(
    "--rank", type=int, metavar="N", help="The rank whose view is printed; without it, all ranks with layouts."
)
@click.option(
    "--phase",
    default="",
    metavar="NAME[:SIZES]",
    help="The phase, as planned (decode) or with other sizes (decode:cache=256). Default: the last.",
)
@model_option
@json_option
def command(plan_file: str, rank: int | None, phase: str, model: str | None, as_json: bool) -> None:
    """Print the instructions of a rank. Nothing is started; the program is checked as before a run."""
    from unitp.api import complete
    from unitp.explain.description import light_outputs
    from unitp.plan_file import load
    from unitp.program.check import check
    from unitp.program.lower import lower
    from unitp.program.memory import peak
    from unitp.program.text import program_text, rank_text

    plan = load(plan_file)
    graph = graph_of(plan, model)
    if graph is None:
        raise ModelError(f'the plan\'s model "{plan.model}" is not known by name', hint="Give it with --model.")
    if rank is not None and not 0 <= rank < plan.mesh.size:
        raise InputError(f"rank {rank} is not on the mesh {plan.mesh}", hint=f"Ranks are 0 to {plan.mesh.size - 1}.")
    known = [p.phase.name for p in plan.phases]
    name, _, sizes = (phase, "", "") if phase in known else phase.partition(":")
    name = name or known[-1]
    planned = plan.phase(name).phase.sizes
    bound = {**planned, **complete(graph, parse_phase(phase)).sizes} if sizes else planned
    program = lower(graph, plan, name, bound, light_outputs(graph))
    check(program, graph)
    if as_json:
        print_json({"program": program, "memory": [peak(program, r) for r in range(plan.mesh.size)]})
        return
    for line in program_text(program) if rank is None else rank_text(program, rank):
        sys.stdout.write(f"{shown(line)}\n")
