"""The choices of a planning problem: what a variable decides on, and which layouts a conversion leads between."""

from __future__ import annotations

import msgspec

from unitp.layout import Layout
from unitp.planner.choices.candidates import Assignment

SHARED = ""
"""The phase name of variables that all phases share."""


class Variable(msgspec.Struct, frozen=True):
    """`kind`: node, value, input, output, parameter or state. A node chooses among assignments, all else among layouts."""

    kind: str
    name: str
    phase: str
    assignments: tuple[Assignment, ...] = ()
    layouts: tuple[Layout, ...] = ()
    copies: tuple[tuple[Layout, ...], ...] = ()
    """Beside the layout of each choice, others in which it is made too, for all readers that want them."""


class Copied(msgspec.Struct, frozen=True):
    """A value that follows from parameters alone, from how it is held to how a node wants it: variables and layouts."""

    source: int
    reader: int
    value: str
    left: tuple[Layout, ...]
    wanted: tuple[Layout, ...]
