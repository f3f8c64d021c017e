"""The least choice of a planning problem without side constraints: exact where that is narrow enough, else by descent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf

import msgspec

from unitp.planner.descent import Shape, descend
from unitp.planner.elimination import Pairs, Table, TooWideError, minimise
from unitp.planner.memo import Memo

EXACT = 4_000_000
"""Entries of the largest table that is worth it: about a second for a model of 32 layers."""

ROUNDING = 1e-12
"""Of a value: what separates a choice from a bound that it meets."""


class Found(msgspec.Struct, frozen=True):
    """A choice, its value, a lower bound on any choice's, and how they were found.

    Where memory was minimised: the bytes of the rank that needs most, and a lower bound on these.
    """

    choice: list[int]
    value: float
    bound: float
    solver: str
    peak_bytes: int = 0
    bound_bytes: int = 0

    @property
    def gap(self) -> float:
        """Of the bound; 0 where the choice is proven to be the best."""
        if self.bound_bytes:
            return max(self.peak_bytes - self.bound_bytes, 0) / self.bound_bytes
        return max(self.value - self.bound, 0.0) / abs(self.bound) if self.bound else 0.0

    @property
    def proven(self) -> bool:
        """Whether nothing is better, but for rounding."""
        return self.gap <= ROUNDING

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


def search(
    unary: Sequence[Table],
    pairs: Pairs,
    shape: Shape,
    memo: Memo | None = None,
    exact: int = EXACT,
    deadline: float = inf,
) -> Found:
    """The least choice with its bound. Raises InfeasibleError where every choice is forbidden.

    Tables of up to `exact` entries are eliminated exactly, smaller ones where `deadline` (of `time.perf_counter`) is near.
    """
    memo = memo or Memo()
    exact = int(min(exact, max(deadline - time.perf_counter(), 0.01) * EXACT))
    try:
        solution = minimise(unary, pairs, exact, memo=memo)
        return Found(solution.choice, solution.value, solution.value, "elimination, exact")
    except TooWideError:
        found = descend(unary, pairs, shape, memo=memo, deadline=deadline)
    if found.value - found.bound <= ROUNDING * abs(found.value):
        return Found(found.choice, found.value, found.value, "descent over phases, proven by its bound")
    return Found(found.choice, found.value, found.bound, "descent over phases")
