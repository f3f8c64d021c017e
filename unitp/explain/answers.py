"""What `Alternatives` answers: a place of a plan with its choices, what a place costs, and which choices are nearly equal."""

from __future__ import annotations

import msgspec


class Alternative(msgspec.Struct, frozen=True):
    """One choice at a place.

    pin                    the choice in the grammar of pins
    pinned_out             a pin of the plan forbids it
    own_s, in_s, out_s     seconds of one call
    total_s, regret_s      parts of the objective, in weighted seconds (inf: impossible)
    held_bytes             bytes that a rank holds if the choice is forced, the mean over ranks
    phases                 seconds of a call of each phase if it is forced
    others                 the number of choices elsewhere that the best plan with it makes differently
    """

    choice: str
    pin: str
    chosen: bool
    pinned_out: bool
    own_s: float
    in_s: float
    out_s: float
    total_s: float
    regret_s: float
    held_bytes: float
    phases: dict[str, float]
    others: int


class Place(msgspec.Struct, frozen=True):
    """A variable of the plan with its alternatives; `names` are all tensors or operators with the same. `phase` "": all phases."""

    what: str
    kind: str
    phase: str
    names: tuple[str, ...]
    alternatives: tuple[Alternative, ...]


class Cost(msgspec.Struct, frozen=True):
    """The seconds of places with one label in one call of a phase: their work, and the conversions of what they read."""

    what: str
    phase: str
    count: int
    own_s: float
    in_s: float


class Contested(msgspec.Struct, frozen=True):
    """A choice, its best alternative (`instead`), and what that would add to the objective (`regret_s`)."""

    what: str
    kind: str
    phase: str
    count: int
    names: tuple[str, ...]
    choice: str
    instead: str
    regret_s: float
