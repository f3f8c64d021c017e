"""Figures by round, and what they come to.

Spread    median, lowest and highest of the rounds that have a value
ratio     of two figures, round by round: both values of a round were taken within minutes of each other
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from speed.subjects import Subject

Values = Sequence[float | None]
"""A value for each round; None where there is none."""


class Key(NamedTuple):
    """What a value is of: a measure ("decode") of a subject."""

    measure: str
    subject: Subject


class Spread(msgspec.Struct, frozen=True):
    """The median over `rounds` rounds, and between what they lie."""

    median: float
    low: float
    high: float
    rounds: int

    def text(self, digits: int = 2) -> str:
        """`1.52 (1.48 to 1.60)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Values) -> Spread | None:
    """The spread of those values that are there; None if none is."""
    there = [value for value in values if value is not None]
    return Spread(statistics.median(there), min(there), max(there), len(there)) if there else None


def combined(function: Callable[..., float], *series: Values) -> list[float | None]:
    """A function of figures, round by round: None in rounds where one of them has no value, or a divisor is zero."""
    found: list[float | None] = []
    for values in zip(*series, strict=False):
        try:
            found.append(None if None in values else function(*values))
        except ZeroDivisionError:
            found.append(None)
    return found


def ratio(above: Values, below: Values) -> list[float | None]:
    """One figure divided by another, round by round."""
    return combined(lambda a, b: a / b, above, below)


class Figures:
    """All values of a run, by what they are of and by round."""

    def __init__(self, values: Mapping[Key, Values] | None = None) -> None:
        self._values: dict[Key, list[float | None]] = {key: list(found) for key, found in (values or {}).items()}

    def add(self, turn: int, found: Mapping[Key, float]) -> None:
        """Note what a turn of round `turn` (from 0 on) has found."""
        for key, value in found.items():
            values = self._values.setdefault(key, [])
            values += [None] * (turn + 1 - len(values))
            values[turn] = value

    def __getitem__(self, key: Key) -> list[float | None]:
        """The values of a figure; empty if it was not measured."""
        return self._values.get(key, [])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def of(self, measure: str, **wanted: object) -> dict[Subject, list[float | None]]:
        """The values of a measure, by those subjects that have all these attributes."""
        return {
            key.subject: values
            for key, values in self._values.items()
            if key.measure == measure
            if all(getattr(key.subject, name) == value for name, value in wanted.items())
        }

    def best(self, measure: str, subjects: Callable[[Subject], bool] = lambda s: True, **wanted: object) -> Key | None:
        """The figure with the highest median among the subjects with these attributes; None if none was measured."""
        found = [
            (seen.median, subject)
            for subject, values in self.of(measure, **wanted).items()
            if subjects(subject) and (seen := spread(values))
        ]
        return Key(measure, max(found)[1]) if found else None
