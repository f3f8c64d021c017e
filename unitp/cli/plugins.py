"""`unitp plugins`: what is built in and what plug-ins add, of each kind, with origin and version; and what is broken."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import print_json, print_table, say, table

NAMES = 40
"""Columns of names, so that the table fits a terminal of 80."""

if TYPE_CHECKING:
    from unitp.plugins.entry_points import Broken
    from unitp.plugins.hooks import Hook


@click.command("plugins")
@json_option
def command(as_json: bool) -> None:
    """List backends, transports, front ends, operators, exports and machine profiles: built-in ones, and those of plug-ins.

    What is broken comes last, with the reason and the command that mends it.
    """
    hooks = every_hook()
    wrong = broken(hooks)
    if as_json:
        rows = [
            {"kind": hook.kind, "name": o.name, "distribution": o.distribution, "version": o.version}
            for hook in hooks
            for o in hook.all().values()
        ]
        print_json({"plugins": rows, "broken": [{"name": b.name, "why": b.reason, "mend": b.mend} for b in wrong]})
        return
    shown = table("kind", "from", "names")
    for hook in hooks:
        for origin, names in _by_origin(hook).items():
            for number, line in enumerate(wrap(", ".join(names), NAMES)):
                shown.add(*(("", "") if number else (hook.kind, origin)), line)
    print_table(shown)
    for one in wrong:
        say((f"{one.name} is broken", "red"), f": {one.reason}. Run: {one.mend}")


def every_hook() -> tuple[Hook[Any], ...]:
    """All hooks of unitp, in the order in which they are listed."""
    from unitp.cost.machine_profiles import MACHINES
    from unitp.engine.operators import DECOMPOSITIONS
    from unitp.frontends import FRONT_ENDS
    from unitp.graph.ops import OPERATORS
    from unitp.plugins.hookspecs import BACKENDS, TRANSPORTS
    from unitp.report.export import EXPORTS

    return BACKENDS, TRANSPORTS, FRONT_ENDS, OPERATORS, DECOMPOSITIONS, EXPORTS, MACHINES


def broken(hooks: tuple[Hook[Any], ...]) -> list[Broken]:
    """The plug-ins that do not load, or whose answer to one of the hooks cannot be used."""
    from unitp.plugins.entry_points import loaded

    found = [*loaded()[1], *(one for hook in hooks for one in hook.broken())]
    return sorted(found, key=lambda one: (one.name, one.reason))


def _by_origin(hook: Hook[Any]) -> dict[str, list[str]]:
    """The names that a hook was given, by distribution and version."""
    found: dict[str, list[str]] = {}
    for offer in hook.all().values():
        found.setdefault(f"{offer.distribution} {offer.version}", []).append(offer.name)
    return found
