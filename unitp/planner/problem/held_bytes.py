"""The bytes that ranks hold between calls, as tables by the choices of a planning problem.

held = sum over ranks of the bytes of parameters, states, and the copies of parameters that calls read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unitp.planner.solve.identity_cache import Memo

Table = npt.NDArray[np.float64]


Pairs = Mapping[tuple[int, int], Table]


class Holding:
    """Tables of bytes by the choices of one variable (`unary`) and of two (`pairs`); other variables hold nothing."""

    def __init__(self, memo: Memo, unary: Mapping[int, Table] | None = None, pairs: Pairs | None = None) -> None:
        self.memo, self.unary, self.pairs = memo, dict(unary or {}), dict(pairs or {})

    def copy(self) -> Holding:
        """Return a copy whose tables can be added to."""
        return Holding(self.memo, self.unary, self.pairs)

    def add(self, a: int, b: int, table: Table) -> None:
        """Add a table of bytes by the choices of two variables; if they are the same, its diagonal counts."""
        if a == b:
            table = self.memo.make("diagonal", (table,), table.diagonal)
            self.unary[a] = self.memo.add(self.unary[a], table) if a in self.unary else table
            return
        key, table = ((a, b), table) if a < b else ((b, a), self.memo.turned(table))
        self.pairs[key] = self.memo.add(self.pairs[key], table) if key in self.pairs else table

    def value(self, choice: Sequence[int]) -> float:
        """Return the bytes that a choice of every variable holds, on all ranks together."""
        own = sum(float(table[choice[i]]) for i, table in self.unary.items())
        return own + sum(float(table[choice[a], choice[b]]) for (a, b), table in self.pairs.items())

    def priced(
        self, unary: Sequence[Table], pairs: Pairs, byte_s: float
    ) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """Return the prices with `byte_s` seconds added for every byte held. `pairs` must have every pair that holds bytes."""
        own, both = list(unary), dict(pairs)
        for i, table in self.unary.items():
            own[i] = self.memo.add(own[i], self.memo.times(table, byte_s))
        for key, table in self.pairs.items():
            both[key] = self.memo.add(both[key], self.memo.times(table, byte_s))
        return own, both
