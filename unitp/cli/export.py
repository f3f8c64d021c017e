"""`unitp export`: a plan in the format of ONNX, torch's DTensor or transformers, and what each of them cannot express."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich_click as click

from unitp.cli.options import json_option, plan_argument, writable
from unitp.cli.output import print_json, remark, say
from unitp.cli.show import graph_of, model_option
from unitp.errors import ModelError, PlanError
from unitp.host import writing

if TYPE_CHECKING:
    from unitp.report.export import Export, Group


def complete_format(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from unitp.report.export import EXPORTS

    return [name for name in EXPORTS.all() if name.startswith(incomplete)]


@click.command("export")
@plan_argument
@click.option(
    "--to",
    "to",
    required=True,
    metavar="FORMAT",
    shell_complete=complete_format,
    help="onnx-sharding, dtensor, tp-plan, or that of a plug-in.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    metavar="FILE",
    help="Where it is written; dtensor and tp-plan are Python where it ends with .py, else JSON.",
)
@click.option(
    "--phase", default="", metavar="NAME", help="Whose sizes and activations onnx-sharding has. Default: the last."
)
@click.option(
    "--strict", is_flag=True, help="Write nothing, and leave with 1, where the format cannot say all of the plan."
)
@model_option
@json_option
def command(plan_file: str, to: str, output: str, phase: str, strict: bool, model: str | None, as_json: bool) -> None:
    """Write a plan for another tool: ONNX's sharding annotations, DTensor placements, or a transformers tp_plan.

    What the format cannot express is listed on standard error: what was planned, and what was written instead.
    """
    from unitp.plan_file import load
    from unitp.report.export import export, grouped, require_format

    require_format(to)
    path = writable(output)
    plan = load(plan_file)
    graph = graph_of(plan, model)
    if graph is None:
        raise ModelError(f'the plan\'s model "{plan.model}" is not known by name', hint="Give it with --model.")
    made = export(plan, graph, to, phase=phase, suffix=path.suffix)
    lost, failed = grouped(made.lost), strict and bool(made.lost)
    if not failed:
        with writing(path, mistake=PlanError):
            path.write_bytes(made.data)
    _explain(to, made, lost)
    if as_json:
        print_json({"format": to, "output": "" if failed else output, "lost": lost, "limits": made.limits})
    elif not failed:
        say(f"written to {output}")
    sys.exit(1 if failed else 0)


def _explain(to: str, made: Export, lost: list[Group]) -> None:
    """Print what the format cannot express, on standard error."""
    for group in lost:
        count = f"{group.count} x " if group.count > 1 else ""
        remark(f"not in {to}: {count}{group.what}: {group.why}")
    for limit in made.limits:
        remark(f"never in {to}: {limit}")
