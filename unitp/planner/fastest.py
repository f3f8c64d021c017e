"""The least choice of a planning problem without side constraints: exact where that is narrow enough, else by descent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from math import inf

import msgspec

from unitp.planner.solve.descent import LIMIT, ROUNDS, Apart, Shape, descend
from unitp.planner.solve.elimination import Elimination, Pairs, Solution, Table, TooWideError, minimise
from unitp.planner.solve.identity_cache import Memo

EXACT = 4_000_000
"""Entries of the largest table that is worth it: about a second for a model of 32 layers."""

AGAIN = 1
"""Steps of the multipliers where prices are near those of an earlier search."""

ROUNDING = 1e-12
"""Of a value: what separates a choice from a bound that it meets."""


class Found(msgspec.Struct, frozen=True):
    """A choice, its value, a lower bound on any choice's, and how they were found.

    `fastest`: the value of the best choice that was found, where this one holds less and is nearly as good. `least_held`: no
    choice as good as that holds fewer bytes (0: not known). Where memory was minimised: the bytes of the rank that needs most,
    and a lower bound on these.
    """

    choice: list[int]
    value: float
    bound: float
    solver: str
    peak_bytes: int = 0
    bound_bytes: int = 0
    fastest: float = inf
    least_held: float = 0.0
    any_bound: float = -inf

    @property
    def gap(self) -> float:
        """Of the bound; 0 where the choice is proven to be the best."""
        if self.bound_bytes:
            return max(self.peak_bytes - self.bound_bytes, 0) / self.bound_bytes
        return max(self.value - self.bound, 0.0) / (abs(self.bound) or abs(self.value) or 1.0)

    @property
    def best(self) -> float:
        """The least value that was found."""
        return min(self.value, self.fastest)

    @property
    def proven(self) -> bool:
        """Whether nothing is better than the best that was found, but for rounding."""
        return self.best - self.bound <= ROUNDING * abs(self.best)

    @property
    def narrow(self) -> bool:
        """Whether `bound` is the least there is of the prices that were minimised."""
        return self.solver.startswith("elimination")

    def judged(self, value: float) -> Found:
        """With the value that its programs have, which may be above that of the prices that were minimised."""
        if value - self.bound <= ROUNDING * abs(value):
            return msgspec.structs.replace(self, value=value, bound=value)
        solver = "elimination, shared conversions bounded" if self.narrow else "descent over phases"
        return msgspec.structs.replace(self, value=value, solver=solver)


class Search:
    """Searches among the same choices at several prices: what depends on sizes and pairs alone is worked out once.

    Tables of up to `exact` entries are eliminated exactly, smaller ones where `deadline` (of `time.perf_counter`) is near.
    """

    def __init__(
        self,
        unary: Sequence[Table],
        pairs: Pairs,
        shape: Shape,
        memo: Memo | None = None,
        exact: int = EXACT,
        deadline: float = inf,
    ) -> None:
        self.shape, self.memo, self.deadline = shape, memo or Memo(), deadline
        self.exact = int(min(exact, max(deadline - time.perf_counter(), 0.01) * EXACT))
        self._first = unary, pairs
        self._elimination: Elimination | None = None
        self._is_wide = False

    @cached_property
    def _apart(self) -> Apart:
        return Apart(*self._first, self.shape, LIMIT)

    def _exactly(self, unary: Sequence[Table], pairs: Pairs) -> Solution | None:
        """The least choice; None where that is too wide."""
        if self._is_wide:
            return None
        try:
            found = minimise(unary, pairs, self.exact, memo=self.memo, elimination=self._elimination)
        except TooWideError:
            self._is_wide = True
            return None
        self._elimination = found.elimination
        return found

    def bound(self, unary: Sequence[Table], pairs: Pairs) -> float:
        """What no choice is below, as far as that is found quickly."""
        if (solution := self._exactly(unary, pairs)) is not None:
            return solution.value
        return self._apart.wishes(unary, pairs, Memo())[1]

    def least(self, unary: Sequence[Table], pairs: Pairs, *, again: bool = False) -> Found:
        """The least choice with its bound; `again`: prices are near those of the last search.

        Raises InfeasibleError where every choice is forbidden.
        """
        if (solution := self._exactly(unary, pairs)) is not None:
            return Found(solution.choice, solution.value, solution.value, "elimination, exact")
        rounds, apart = AGAIN if again else ROUNDS, self._apart
        found = descend(unary, pairs, self.shape, memo=self.memo, rounds=rounds, deadline=self.deadline, apart=apart)
        if found.value - found.bound <= ROUNDING * abs(found.value):
            return Found(found.choice, found.value, found.value, "descent over phases, proven by its bound")
        return Found(found.choice, found.value, found.bound, "descent over phases")
