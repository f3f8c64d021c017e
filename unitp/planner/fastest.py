"""The fastest choice of a planning problem without memory limits: exact if the treewidth is low enough, else by descent."""

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
"""The most entries of a table for exact elimination: about a second for a model of 32 layers."""

AGAIN = 1
"""Steps of the multipliers if prices are close to those of the last search."""

ROUNDING = 1e-12
"""The relative gap within which a choice counts as meeting its bound."""


class Found(msgspec.Struct, frozen=True):
    """A choice, its value in seconds, a lower bound on the value of every choice, and how they were found.

    peak_bytes    if memory was minimised, the bytes of the rank that needs most; else 0
    bound_bytes   a lower bound on `peak_bytes` of every choice
    fastest       the least value found, if this choice is slightly slower and holds fewer bytes
    least_held    a lower bound on the bytes held by every choice that is as fast (0: unknown)
    any_bound     a lower bound on the value even if parameters may have several layouts
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
        """The gap to the bound as a fraction of the bound; 0 if the choice is proven to be the best."""
        if self.bound_bytes:
            return max(self.peak_bytes - self.bound_bytes, 0) / self.bound_bytes
        return max(self.value - self.bound, 0.0) / (abs(self.bound) or abs(self.value) or 1.0)

    @property
    def best(self) -> float:
        """The least value found, in seconds."""
        return min(self.value, self.fastest)

    @property
    def proven(self) -> bool:
        """Whether no choice is better than the best one found, up to rounding."""
        return self.best - self.bound <= ROUNDING * abs(self.best)

    @property
    def exact(self) -> bool:
        """Whether elimination was exact: `bound` is then the minimum of the prices that were minimised."""
        return self.solver.startswith("elimination")

    def judged(self, value: float) -> Found:
        """Return this with the value of its programs, which may be above that of the prices that were minimised."""
        if value - self.bound <= ROUNDING * abs(value):
            return msgspec.structs.replace(self, value=value, bound=value)
        solver = "elimination, shared conversions bounded" if self.exact else "descent over phases"
        return msgspec.structs.replace(self, value=value, solver=solver)


class Search:
    """Searches the same choices at several prices; the elimination order and the blocks are computed once.

    exact      the most entries of a table for exact elimination; fewer if the deadline is near
    deadline   a time of `time.perf_counter`
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
        """Return the best choice by exact elimination, or None if a table would be too large."""
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
        """Return a lower bound on every choice that is found quickly: the minimum, or one step of the descent."""
        if (solution := self._exactly(unary, pairs)) is not None:
            return solution.value
        return self._apart.wishes(unary, pairs, Memo())[1]

    def least(self, unary: Sequence[Table], pairs: Pairs, *, again: bool = False) -> Found:
        """Return the best choice with its bound. `again`: prices are close to those of the last search.

        Raises InfeasibleError if every choice is forbidden.
        """
        if (solution := self._exactly(unary, pairs)) is not None:
            return Found(solution.choice, solution.value, solution.value, "elimination, exact")
        rounds, apart = AGAIN if again else ROUNDS, self._apart
        found = descend(unary, pairs, self.shape, memo=self.memo, rounds=rounds, deadline=self.deadline, apart=apart)
        if found.value - found.bound <= ROUNDING * abs(found.value):
            return Found(found.choice, found.value, found.value, "descent over phases, proven by its bound")
        return Found(found.choice, found.value, found.bound, "descent over phases")
