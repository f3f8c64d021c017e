"""`unitp diff`: what differs between two plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from unitp.cli.options import json_option, machine_option, options, read_machine
from unitp.cli.output import mebibytes, print_json, print_table, remark, say, table
from unitp.cli.show import graph_of, model_option

if TYPE_CHECKING:
    from unitp.explain.difference import Difference


@click.command("diff")
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@options(model_option, machine_option, json_option)
def command(first: str, second: str, model: str | None, machine: str | None, as_json: bool) -> None:
    """Show what differs from plan A to plan B: layouts, what moves, predicted seconds, memory.

    Layers with the same differences share one line. Plans for other graphs or meshes are compared as far as that makes sense.
    With --machine, both are priced on it.
    """
    from unitp.explain.difference import difference
    from unitp.plan_file import load

    a, b, priced_on = load(first), load(second), read_machine(machine)
    graph = graph_of(a, model)
    other = graph if a.graph == b.graph else graph_of(b, None)
    found = difference(a, b, graph, other, priced_on)
    if as_json:
        print_json({"a": first, "b": second, **{f: getattr(found, f) for f in found.__struct_fields__}})
        return
    print_difference(found)


def print_difference(found: Difference) -> None:
    """Print tables of what differs. Notes go to standard error."""
    if found.same:
        say("The plans are the same.")
    elif not found.changes:
        say("Nothing is laid out otherwise.")
    if found.changes:
        rows = table("phase", ">count", "kind", "what", "A", "B")
        for change in found.changes:
            rows.add(change.phase or "all", str(change.count), change.kind, change.what, change.a, change.b)
        print_table(rows)
        say("")
    if found.moves and not found.same:
        rows = table("phase", "collective", "over", ">calls A", ">B", ">bytes A", ">B")
        for m in found.moves:
            rows.add(m.phase, m.kind, m.axis, str(m.count_a), str(m.count_b), f"{m.bytes_a:,}", f"{m.bytes_b:,}")
        print_table(rows)
        say("")
    rows = table("predicted", ">A", ">B", ">B / A")
    for row in found.seconds:
        rows.add(row.what, f"{row.a * 1e3:.2f} ms", f"{row.b * 1e3:.2f} ms", _ratio(row.a, row.b))
    for row in found.memory:
        rows.add(f"memory, {row.what}", mebibytes(row.a), mebibytes(row.b), _ratio(row.a, row.b))
    print_table(rows)
    for note in found.notes:
        remark(note)


def _ratio(a: float, b: float) -> str:
    return f"{b / a:.3f}" if a else ""
