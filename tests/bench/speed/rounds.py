"""All turns one after the other, many times, every second time backwards, so that nobody always follows the same one.

Round 0 is not counted: frameworks compile, and pages are mapped. A subject that fails in a turn is left out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from speed.figures import Figures, Key
from speed.peers import PeerError
from speed.subjects import Subject
from unitp.errors import UnitpError


class Turn(NamedTuple):
    """What is measured of a subject in one go: `take` returns all figures of it."""

    what: str
    subject: Subject
    take: Callable[[], Mapping[Key, float]]


Tell = Callable[[int, Turn, Mapping[Key, float]], None]
"""`tell(round, turn, found)`, after each turn."""


def run(turns: Sequence[Turn], rounds: int, tell: Tell) -> tuple[Figures, dict[Subject, str]]:
    """The figures of so many rounds, and why subjects were left out on the way."""
    figures, failed = Figures(), dict[Subject, str]()
    for number in range(rounds + 1):
        for turn in ordered(turns, number):
            if turn.subject in failed:
                continue
            try:
                found = turn.take()
            except (UnitpError, PeerError) as error:
                failed[turn.subject] = f"{turn.what}: {error}"
                continue
            if number:
                figures.add(number - 1, found)
            tell(number, turn, found)
    return figures, failed


def ordered(turns: Sequence[Turn], number: int) -> list[Turn]:
    """The turns of a round, in the order of that round."""
    return [*turns] if number % 2 == 0 else [*reversed(turns)]
