"""The variables of a planning problem, and the conversions of values that depend on parameters alone."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from unitp.layout import Layout
from unitp.planner.choices.candidates import Assignment

SHARED = ""
"""The phase name of a variable that all phases share."""


class Variable(msgspec.Struct, frozen=True):
    """One decision of a plan. A variable of kind "node" chooses among assignments, any other among layouts.

    kind     "node", "value", "input", "output", "parameter" or "state"
    copies   for each choice, further layouts in which the value is made, for all readers that require them; () without copies
    """

    kind: str
    name: str
    phase: str
    assignments: tuple[Assignment, ...] = ()
    layouts: tuple[Layout, ...] = ()
    copies: tuple[tuple[Layout, ...], ...] = ()

    def with_copies(self) -> Iterator[tuple[Layout, tuple[Layout, ...]]]:
        """Yield the layout of each choice, and its copies."""
        return zip(self.layouts, self.copies or ((),) * len(self.layouts), strict=True)


class Copied(msgspec.Struct, frozen=True):
    """A value that depends on parameters alone, and a node that reads it.

    source, produced    the variable that decides how the value is held, and the layout of each of its choices
    reader, required    the variable of the node, and the layout that each of its assignments requires
    """

    source: int
    reader: int
    value: str
    produced: tuple[Layout, ...]
    required: tuple[Layout, ...]
