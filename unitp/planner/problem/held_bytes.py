"""Bytes that ranks hold between calls, beside the seconds of a planning problem: what choices add up to, and one layout each.

    held = sum over ranks of parameters, states, and what copies calls read of parameters            (whole bytes, all ranks together)

A conversion of a parameter runs once, at load, and takes no time of any call. Were it only for time, each phase would have a
copy of the whole model cut as it likes best, for a percent of its time. So all that read a parameter want it as it is held, in
every phase: one layout, beside which only a mask of it (a bias that one rank adds) is kept. It has several where that makes the
plan faster by more than `WORTH`, and where pins leave it no layout that all its readers want.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unitp.layout import Layout
from unitp.planner.solve.identity_cache import Memo

if TYPE_CHECKING:
    from unitp.planner.problem.variables import Problem

Table = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


Pairs = Mapping[tuple[int, int], Table]
WORTH = 0.05
"""Of the time: parameters are held in several layouts only where no plan without is as fast, but for this part."""


class Holding:
    """Bytes by the choices of one variable, and of two; what is not named holds nothing."""

    def __init__(self, memo: Memo, unary: Mapping[int, Table] | None = None, pairs: Pairs | None = None) -> None:
        self.memo, self.unary, self.pairs = memo, dict(unary or {}), dict(pairs or {})

    def copy(self) -> Holding:
        return Holding(self.memo, self.unary, self.pairs)

    def add(self, a: int, b: int, table: Table) -> None:
        """Add bytes by the choices of two variables."""
        if a == b:
            table = self.memo.make("diagonal", (table,), table.diagonal)
            self.unary[a] = self.memo.add(self.unary[a], table) if a in self.unary else table
            return
        key, table = ((a, b), table) if a < b else ((b, a), self.memo.turned(table))
        self.pairs[key] = self.memo.add(self.pairs[key], table) if key in self.pairs else table

    def value(self, choice: Sequence[int]) -> float:
        """Bytes that a choice of every variable holds."""
        own = sum(float(table[choice[i]]) for i, table in self.unary.items())
        return own + sum(float(table[choice[a], choice[b]]) for (a, b), table in self.pairs.items())

    def priced(
        self, unary: Sequence[Table], pairs: Pairs, byte_s: float
    ) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """Prices to which so many seconds are added for every byte. Every pair that holds bytes is in `pairs`."""
        own, both = list(unary), dict(pairs)
        for i, table in self.unary.items():
            own[i] = self.memo.add(own[i], self.memo.times(table, byte_s))
        for key, table in self.pairs.items():
            both[key] = self.memo.add(both[key], self.memo.times(table, byte_s))
        return own, both


def one_layout(problem: Problem) -> dict[tuple[int, int], Table]:
    """`problem.pairs` that forbid a second layout of a parameter, or of what follows from parameters, where pins allow that."""
    memo, pairs = problem.memo, dict(problem.pairs)
    agree: dict[tuple[int, int], Table] = {}
    edges: dict[int, list[tuple[int, Table]]] = {}
    for copied in problem.copied:
        key = id(copied.left), id(copied.wanted)
        if key not in agree:
            agree[key] = np.where(_alike(copied.left, copied.wanted), 0.0, np.inf)
        edges.setdefault(copied.source, []).append((copied.reader, agree[key]))

    def able(number: int) -> Mask:
        """The choices of a variable in which all that reads it, and what reads these, can have it as it is."""
        found = np.isfinite(problem.unary[number])
        for reader, table in edges.get(number, ()):
            found = found & (np.isfinite(table) & able(reader)).any(axis=1)
        return found

    def forbid(number: int) -> None:
        for reader, table in edges.get(number, ()):
            key, turned = ((number, reader), table) if number < reader else ((reader, number), memo.turned(table))
            pairs[key] = memo.add(pairs[key], turned)
            forbid(reader)

    inner = {reader for readers in edges.values() for reader, _ in readers}
    for number in edges:
        if number not in inner and able(number).any():
            forbid(number)
    return pairs


def _alike(left: Sequence[Layout], wanted: Sequence[Layout]) -> Mask:
    """Whether two layouts have the same part of every dim on each rank."""
    return np.array([[a.dims == b.dims for b in wanted] for a in left])
