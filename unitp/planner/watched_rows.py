"""The rows of bytes that the search within memory watches: those of the few ranks and phases whose budget binds.

row      a lower bound on the bytes of a rank in a phase, as a sum of tables over choices (`Row`)
room     the most that it may be
price    the multiplier of the row: seconds per byte
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from unitp.planner.judged import Point
from unitp.planner.problem.footprint import Footprint
from unitp.planner.problem.problem import Problem
from unitp.planner.solve.descent import Apart, Shape
from unitp.planner.solve.elimination import Table
from unitp.planner.solve.identity_cache import Memo
from unitp.planner.solve.integer_programs import Row

ONE_PHASE = 50_000_000
"""The most entries of a table for eliminating one phase."""

APART = (0.98, 1.02)
"""Factors of the multiplier at which two choices cost the same: below it the first is better, above it the second."""

Tables = tuple[Sequence[Table], Mapping[tuple[int, int], Table]]
"""The tables of a problem: of one variable, and of two."""


class Watch(msgspec.Struct, frozen=True):
    """A lower bound on the bytes of a rank in a phase, by choices, and the most (`room`) that it may be."""

    rank: int
    phase: str
    row: Row
    room: float


class Watched:
    """All rows that are watched so far; rows are only added. `shape`: the blocks into which the problem is decomposed."""

    def __init__(self, problem: Problem, shape: Shape) -> None:
        self.problem, self.shape = problem, shape
        self.footprint = Footprint(problem)
        self._watches: dict[tuple[int, str, int], Watch] = {}
        self._held: dict[tuple[int, str], float] = {}

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def rows(self) -> list[Row]:
        """The rows in the order in which they were added."""
        return [watch.row for watch in self._watches.values()]

    @property
    def rooms(self) -> Table:
        """The most bytes that each row may be."""
        return np.array([watch.room for watch in self._watches.values()])

    @property
    def places(self) -> list[tuple[int, str]]:
        """The ranks and phases whose rows are watched, each once."""
        return list(dict.fromkeys((rank, phase) for rank, phase, _ in self._watches))

    def add(self, rank: int, point: Point, budget: float) -> bool:
        """Watch two rows of a rank in each phase: the bytes held, and those plus the need of the nodes that need most at a point.

        Each of several equal nodes must fit by itself, so their mean must: one row serves all layers. False: nothing new.
        """
        known = len(self._watches)
        for phase in (p.name for p in self.problem.phases):
            held, needs = self.footprint.held(rank, phase), self.footprint.needs(rank, phase)
            room = budget - self.footprint.least_need(rank, phase)
            self._watches.setdefault((rank, phase, 0), Watch(rank, phase, held, room))
            if needs:
                table = needs[max(needs, key=lambda i: needs[i][point.choice[i]])]
                alike = [i for i, need in needs.items() if need is table]
                row = Row({**held.unary, **dict.fromkeys(alike, table / len(alike))}, held.pairs)
                self._watches.setdefault((rank, phase, id(table)), Watch(rank, phase, row, budget))
        return len(self._watches) > known

    def least_held(self, rank: int, phase: str) -> float:
        """Return a lower bound on the bytes that a rank holds under any choice."""
        if (rank, phase) not in self._held:
            row, memo = self.footprint.held(rank, phase), Memo()
            unary = [
                row.unary[i] if i in row.unary else memo.make("finite", (own,), partial(_finite, own))
                for i, own in enumerate(self.problem.unary)
            ]
            pairs = {
                k: row.pairs.get(k, memo.make("none", (t,), partial(np.zeros, t.shape)))
                for k, t in self.problem.pairs.items()
            }
            self._held[rank, phase] = Apart(unary, pairs, self.shape, ONE_PHASE).wishes(unary, pairs, memo)[1]
        return self._held[rank, phase]

    def least_peak(self, rank: int, phase: str) -> float:
        """Return a lower bound on the peak bytes of a rank in a phase under any choice."""
        return self.least_held(rank, phase) + self.footprint.least_need(rank, phase)

    def priced(
        self, base: Tables, prices: Iterable[float], memo: Memo, cheap: Collection[int] = ()
    ) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """Return the tables in which every byte of a row has a price (`APART`: lower for the variables in `cheap`,
        higher for the others).
        """
        unary, pairs = list(base[0]), dict(base[1])
        for row, price in zip(self.rows, prices, strict=False):
            if price:
                below, above = (float(price) * part for part in (APART if cheap else (1.0, 1.0)))
                for i, table in row.unary.items():
                    unary[i] = memo.add(unary[i], memo.times(table, below if i in cheap else above))
                for (a, b), table in row.pairs.items():
                    factor = below if a in cheap or b in cheap else above
                    pairs[a, b] = memo.add(pairs[a, b], memo.times(table, factor))
        return unary, pairs

    def needs_priced(self, unary: Sequence[Table], price: float, memo: Memo) -> list[Table]:
        """Return the tables in which every byte that a node needs while it runs has a price."""
        priced = list(unary)
        for rank, phase, _ in self._watches:
            for i, need in self.footprint.needs(rank, phase).items():
                priced[i] = memo.add(priced[i], memo.times(need, price))
        return priced


def mean(row: Row, wishes: Sequence[Mapping[int, int]]) -> float:
    """Return the value of a row if each block has what it wishes; wishes about a shared variable are averaged."""
    total = 0.0
    for i, table in row.unary.items():
        having = [wish for wish in wishes if i in wish]
        total += sum(float(table[wish[i]]) for wish in having) / len(having)
    for (a, b), table in row.pairs.items():
        having = [wish for wish in wishes if a in wish and b in wish]
        total += sum(float(table[wish[a], wish[b]]) for wish in having) / len(having)
    return total


def unit(row: Row) -> float:
    """Return the mean span of a row's tables, in bytes: the scale of a step of its multiplier."""
    spans = [float(np.ptp(table)) for table in row.unary.values() if len(table)]
    return max(float(np.mean(spans)) if spans else 1.0, 1.0)


def _finite(table: Table) -> Table:
    """Return 0 for a choice that is allowed, and inf for one that is forbidden."""
    return np.where(np.isfinite(table), 0.0, np.inf)
