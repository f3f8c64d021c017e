"""The notation of pins: choices that a user fixes before the planner decides the rest.

    PIN     [PHASE/]PATTERN: ATOM, ATOM, ...
    ATOM    [WHERE=] S(DIM)@AXIS | P@AXIS | R@AXIS | R | LAYOUT

S, P and R are conditions on a layout: a dim is split over an axis (the planner decides where it is cut), it is partial over one, it is
neither; R alone: over no axis. LAYOUT is a whole layout in the notation of `unitp.layout`: `-,tp[0:5 5:9]`.

Without WHERE, the pattern (a glob) names tensors (parameters, states, inputs, values), and an atom says how they are held. With
WHERE, it names operators, by a node's name or by a parameter or state that they read, and an atom says which layout an operand
is required in or a result is produced in. WHERE is one of: x, the first operand that does not depend on parameters alone; w, the
first that does; y, the first result; x0, x1, ..., an operand by its number; y0, y1, ..., a result by its number. An atom without
WHERE takes it from the atom before it. A pin without PHASE holds in every phase.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from unitp.errors import InputError, PlanError
from unitp.layout import Layout, parse_layout

EXAMPLE = (
    'A pin is written as in "blk.*.ffn_down.weight: S(1)@tp" or "decode/blk.*.ffn_down.weight: x=S(2)@tp, y=P@tp".'
)
_ATOM = re.compile(
    r"(?:(?P<where>[wxy][0-9]{0,4})\s*=\s*)?(?P<kind>[SRP])(?:\((?P<dim>-?[0-9]{1,4})\))?(?:@(?P<axis>\w+))?"
)
_DIM = re.compile(r"(?:(?P<where>[wxy][0-9]{0,4})\s*=\s*)?(?P<dim>-(?:[|,].*)?|[^()@=]*\[.*)")
_COLONS = re.compile(r"\[[0-9: ]*|\|[a-z]+:")
"""Where a layout has colons."""


class Atom(msgspec.Struct, frozen=True):
    """A condition on the layout of one operand (`where`; "": of the tensor itself) over one axis ("", only for R: every axis).

    Kind L wants one `layout` exactly, whatever the other fields are.
    """

    where: str
    kind: Literal["S", "R", "P", "L"]
    axis: str = ""
    dim: int = 0
    layout: Layout | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the condition names."""
        return (*self.layout.axes, *self.layout.partial) if self.layout else (self.axis,) if self.axis else ()

    def misfit(self, rank: int) -> str:
        """Return what keeps the condition from a tensor with `rank` dims, or nothing."""
        if self.layout is not None and len(self.layout.dims) != rank:
            return f"layout {self.layout} has {len(self.layout.dims)}"
        return f"there is no dim {self.dim}" if self.kind == "S" and not -rank <= self.dim < rank else ""

    def holds(self, layout: Layout) -> bool:
        """Say whether a layout satisfies this condition."""
        if self.layout is not None:
            return self.layout == layout
        if self.kind == "S":
            split = layout.dims[self.dim]
            return split is not None and self.axis in split.axes
        if self.kind == "P":
            return self.axis in layout.partial
        used = {*layout.axes, *layout.partial}
        return self.axis not in used if self.axis else not used


class Pin(msgspec.Struct, frozen=True):
    """A pin that was read but not yet applied to a problem. `phase` "": every phase."""

    text: str
    phase: str
    pattern: str
    atoms: tuple[Atom, ...]

    @property
    def of_operators(self) -> bool:
        """Whether the pin is about operators, not about tensors."""
        return bool(self.atoms[0].where)


def parse(text: str, phases: Sequence[str] = ()) -> Pin:
    """Return the pin that a text describes; a first part `NAME/` is a phase if `phases` has that name.

    Raises InputError if the text cannot be read.
    """
    colon = _COLONS.sub(lambda found: " " * len(found[0]), text).rfind(":")
    pattern, tail = text[: max(colon, 0)].strip(), text[colon + 1 :]
    if not pattern:
        raise InputError(f'cannot read pin "{text}": it has no "PATTERN:" before its layouts', hint=EXAMPLE)
    phase, slash, rest = pattern.partition("/")
    phase, pattern = (phase, rest) if slash and phase in phases else ("", pattern)
    atoms: list[Atom] = []
    for part in _parts(tail):
        try:
            atoms.append(_atom(part, atoms[-1].where if atoms else ""))
        except PlanError as error:
            raise InputError(f'cannot read pin "{text}": {error.message}', hint=EXAMPLE) from None
    if any(atom.where for atom in atoms) and not all(atom.where for atom in atoms):
        raise InputError(
            f'cannot read pin "{text}": the first layout names no operand, a later one does',
            hint="Name an operand for each (x, w, y, x0, y0, ...), or for none to pin a tensor.",
        )
    return Pin(text, phase, pattern, tuple(atoms))


def _parts(tail: str) -> list[str]:
    """Return the atoms of a pin as text: what is between commas, but the dims of a layout together."""
    parts: list[str] = []
    within = False
    for part in (p.strip() for p in tail.split(",")):
        dim = _DIM.fullmatch(part)
        if dim and within and not dim["where"]:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
        within = dim is not None and "|" not in part
    return parts


def _atom(part: str, before: str) -> Atom:
    """Return the atom that a text stands for; one without WHERE has that of the atom `before`. Raises PlanError if it is none."""
    if dim := _DIM.fullmatch(part):
        return Atom(dim["where"] or before, "L", layout=parse_layout(part[dim.start("dim") :]))
    match = _ATOM.fullmatch(part)
    if match is None or (match["kind"] == "S") != (match["dim"] is not None):
        raise PlanError(f'"{part}" is not S(DIM)@AXIS, P@AXIS, R@AXIS, R or a layout')
    if match["axis"] is None and match["kind"] != "R":
        raise PlanError(f'"{part}" names no axis')
    kind: Literal["S", "R", "P"] = match["kind"]  # type: ignore[assignment]
    return Atom(match["where"] or before, kind, match["axis"] or "", int(match["dim"] or 0))


def written(layout: Layout) -> str:
    """Return a layout as conditions of a pin: `S(1)@tp`, `S(0)@dp S(2)@tp`, `P@tp`, or `R` for a replicated one.

    They leave open where dims are cut. The notation of the layout itself (`str`) is the pin that does not.
    """
    atoms = [f"S({dim})@{axis}" for dim, split in enumerate(layout.dims) if split for axis in split.axes]
    return " ".join([*atoms, *(f"P@{axis}" for axis in layout.partial)]) or "R"
