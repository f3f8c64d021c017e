"""A cache of operations on tables, by the identity of the operands: equal layers are computed once.

Tables are compared by identity, not by value, so a look-up costs the same whatever their size. It is of use because
`unitp.planner.problem.problem` makes equal tables one object.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]


class Memo:
    """Results by operation and operands. Operands are kept alive, so that no other object gets their identity."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, Table] = {}
        self._picks: dict[Hashable, int] = {}
        self._kept: dict[int, Table] = {}

    def make(self, what: Hashable, operands: Sequence[Table], function: Callable[[], Table]) -> Table:
        """Return the table that `function` computes, which may depend on `what` and `operands` alone."""
        key = (what, *map(id, operands))
        if (found := self._tables.get(key)) is None:
            found = self._tables[key] = function()
            self._kept |= {id(table): table for table in operands}
        return found

    def pick(self, what: Hashable, operands: Sequence[Table], function: Callable[[], int]) -> int:
        """Return the number that `function` computes, which may depend on `what` and `operands` alone."""
        key = (what, *map(id, operands))
        if (found := self._picks.get(key)) is None:
            found = self._picks[key] = function()
            self._kept |= {id(table): table for table in operands}
        return found

    def add(self, a: Table, b: Table) -> Table:
        """Return `a + b`."""
        return self.make("+", (a, b), lambda: a + b)

    def times(self, a: Table, factor: float) -> Table:
        """Return `a * factor`; the same object for 1."""
        return a if factor == 1.0 else self.make(("*", factor), (a,), lambda: a * factor)

    def turned(self, a: Table) -> Table:
        """Return the transpose of a table."""
        return self.make("T", (a,), lambda: a.T)

    def row(self, a: Table, at: int) -> Table:
        """Return `a[at]`."""
        return self.make(("row", at), (a,), lambda: a[at])

    def column(self, a: Table, at: int) -> Table:
        """Return `a[:, at]`."""
        return self.make(("column", at), (a,), lambda: a[:, at])
