"""Lagrangian decomposition of a problem whose treewidth is too high: into blocks that meet only in shared variables.

    bound(d)    sum over blocks p of  min over choices of  block p + its part of the shared prices + d_p . shared,   sum_p d_p = 0
    value       blocks given shared variables, and shared variables given blocks, in turn until the value no longer falls

The blocks of a plan are its phases; they share parameters and states. The optimum of a block by itself is its *wish*. If two
blocks wish for different values of a shared variable, the multipliers d raise the price of a value for the block that wishes for it
more often (subgradients with Polyak's step). That raises the bound and brings the wishes closer. Each wish is a start for `value`.
Shared variables with equal tables have equal multipliers, so that equal layers stay equal and are solved once. A choice is called
optimal only if its value meets the bound.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from math import inf

import msgspec
import numpy as np

from unitp.errors import PlanError
from unitp.planner.solve.elimination import (
    Elimination,
    InfeasibleError,
    Pairs,
    Table,
    TooWideError,
    conflict,
    evaluate,
    renamed,
)
from unitp.planner.solve.identity_cache import Memo

ROUNDS = 40
"""The most steps of the multipliers."""

LIMIT = 1_000_000
"""The most entries of a table for eliminating one block exactly."""

TRIED = (0, 2, 5, 9, 14, 20, 27, ROUNDS - 1)
"""The steps after which the wishes of blocks are tried as starts."""

CLOSE = 3e-4
"""Stop at this relative gap."""

PATIENCE = 6
"""Stop if this many steps close less than a twentieth of the gap."""


class Shape(msgspec.Struct, frozen=True):
    """The decomposition of a problem: variables of different `blocks` meet only in `shared` variables."""

    shared: Sequence[int]
    blocks: Sequence[Sequence[int]]


class Descent(msgspec.Struct, frozen=True):
    """The best choice found, its value, and a lower bound on the value of every choice."""

    choice: list[int]
    value: float
    bound: float


def descend(
    unary: Sequence[Table],
    pairs: Pairs,
    shape: Shape,
    limit: int = LIMIT,
    *,
    memo: Memo | None = None,
    rounds: int = ROUNDS,
    deadline: float = inf,
    apart: Apart | None = None,
) -> Descent:
    """Return the best choice of all descents, with its bound, after up to `rounds` steps of the multipliers.

    limit   the most entries of a table; a block that would exceed it contributes only a lower bound of its minimum
    apart   the decomposition that an earlier call used, for sizes and pairs as here: its multipliers are a good start

    Raises PlanError if every start meets forbidden choices, and InfeasibleError if a block has no choice at all.
    """
    memo = memo or Memo()
    apart = apart or Apart(unary, pairs, shape, limit)
    bounds: list[float] = []
    bound, best, seen = -inf, None, set()
    for number in range(rounds):
        wishes, total = apart.wishes(unary, pairs, Memo())
        bound = max(bound, total)
        bounds.append(bound)
        if number in TRIED:
            for wish in wishes:
                start = tuple(wish[i] for i in shape.shared)
                found = None if start in seen else apart.improve(unary, pairs, memo, wish)
                seen.add(start)
                if found is not None and (best is None or found[1] < best[1]):
                    best = found
            if best is None:
                raise PlanError("descent over phases met forbidden choices from every start")
        assert best is not None
        if best[1] - bound <= CLOSE * abs(best[1]) or time.perf_counter() > deadline:
            break
        if number >= PATIENCE and bound - bounds[number - PATIENCE] < (best[1] - bound) / 20:
            break
        slopes = apart.slopes(wishes)
        if (square := sum(float(row @ row) for slope in slopes for row in slope.values())) == 0.0:
            break
        apart.move(slopes, shortened(number) * (best[1] - total) / square)
    assert best is not None
    return Descent(*best, bound)


def shortened(number: int) -> float:
    """Return the factor of Polyak's step in a round: it falls, since the step aims at a value above the best bound."""
    return float(0.9 ** (number / 4))


class Apart:
    """A decomposed problem with its multipliers. Each method takes the tables, since prices may change; their sizes may not."""

    def __init__(self, unary: Sequence[Table], pairs: Pairs, shape: Shape, limit: int) -> None:
        self.sizes, self.shape, self.limit = [len(u) for u in unary], shape, limit
        self.inside = set(shape.shared)
        self.group = _alike(unary, pairs, shape.shared)
        sizes = {number: len(unary[i]) for i, number in self.group.items()}
        self.multipliers = [{number: np.zeros(n) for number, n in sizes.items()} for _ in shape.blocks]
        self._eliminations: dict[Hashable, Elimination] = {}

    def wishes(self, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> tuple[list[dict[int, int]], float]:
        """Return each block's wish, as values of its own and the shared variables, and the sum of their costs.

        The sum is a lower bound on the value of every choice. Raises InfeasibleError if a block has no choice.
        """
        part = 1 / len(self.shape.blocks)
        halves = {i: memo.times(unary[i], part) for i in self.shape.shared}
        among = {k: memo.times(t, part) for k, t in pairs.items() if k[0] in self.inside and k[1] in self.inside}
        every = {**pairs, **among}
        found, total = [], 0.0
        for number, block in enumerate(self.shape.blocks):
            multipliers = self.multipliers[number]
            own = [memo.add(halves[i], multipliers[self.group[i]]) for i in self.shape.shared]
            variables = [*self.shape.shared, *block]
            tables = [*own, *(unary[i] for i in block)]
            choice, value = self._least(("alone", number), tables, renamed(every, variables), memo)
            found.append(dict(zip(variables, choice, strict=True)))
            total += value
        return found, total

    def slopes(self, wishes: Sequence[Mapping[int, int]]) -> list[dict[int, Table]]:
        """Return the subgradient of each block: how much more often it wishes for a shared value than blocks do on average."""
        counts = [{number: np.zeros(len(d)) for number, d in self.multipliers[0].items()} for _ in wishes]
        for count, wish in zip(counts, wishes, strict=True):
            for i in self.shape.shared:
                count[self.group[i]][wish[i]] += 1.0
        mean = {number: sum(count[number] for count in counts) / len(counts) for number in counts[0]} if counts else {}
        return [{number: row - mean[number] for number, row in count.items()} for count in counts]

    def move(self, slopes: Sequence[Mapping[int, Table]], length: float) -> None:
        """Step the multipliers along the subgradients: raise a block's price of what it wishes for more often than others."""
        for own, slope in zip(self.multipliers, slopes, strict=True):
            for number, row in slope.items():
                if row.any():
                    own[number] = own[number] + row * length

    def improve(
        self, unary: Sequence[Table], pairs: Pairs, memo: Memo, start: Mapping[int, int]
    ) -> tuple[list[int], float] | None:
        """Return the choice and value reached from a start by alternating blocks and shared variables.

        None: a block has no choice under the start's shared values.
        """
        fixed = {i: start[i] for i in self.shape.shared}
        best: tuple[list[int], float] | None = None
        while True:
            try:
                choice = self.given(unary, pairs, memo, fixed)
            except InfeasibleError:
                return best
            value = evaluate(unary, pairs, choice)
            if best is not None and value >= best[1] - 1e-12 * abs(best[1]):
                return best
            best = choice, value
            rest = {i: choice[i] for block in self.shape.blocks for i in block}
            fixed = self._given("shared", self.shape.shared, rest, unary, pairs, memo)

    def given(self, unary: Sequence[Table], pairs: Pairs, memo: Memo, shared: Mapping[int, int]) -> list[int]:
        """Return the best choice with these values of shared variables. Raises InfeasibleError if a block has none."""
        state = dict(shared)
        for number, block in enumerate(self.shape.blocks):
            state |= self._given(number, block, shared, unary, pairs, memo)
        return [state[i] for i in range(len(unary))]

    def _given(
        self,
        key: Hashable,
        variables: Sequence[int],
        fixed: Mapping[int, int],
        unary: Sequence[Table],
        pairs: Pairs,
        memo: Memo,
    ) -> dict[int, int]:
        """Return the best values of `variables` when those of `fixed` are given; they meet no others."""
        inside = set(variables)
        own = {i: unary[i] for i in variables}
        for (a, b), table in pairs.items():
            if a in inside and b in fixed:
                own[a] = memo.add(own[a], memo.column(table, fixed[b]))
            elif b in inside and a in fixed:
                own[b] = memo.add(own[b], memo.row(table, fixed[a]))
        choice, _ = self._least(("given", key), [own[i] for i in variables], renamed(pairs, variables), memo)
        return dict(zip(variables, choice, strict=True))

    def _least(self, key: Hashable, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> tuple[list[int], float]:
        """Minimise as `minimise` does, with one elimination order for each `key`.

        If a table would be too large, the value is a lower bound, which the choice need not meet.
        """
        if key not in self._eliminations:
            sizes = [len(u) for u in unary]
            try:
                self._eliminations[key] = Elimination(sizes, pairs, self.limit)
            except TooWideError:
                self._eliminations[key] = Elimination(sizes, pairs, self.limit, split=True)
        choice, value = self._eliminations[key].run(unary, pairs, memo)
        if not np.isfinite(value):
            raise InfeasibleError(conflict(unary, pairs, self.limit))
        return choice, value


def _alike(unary: Sequence[Table], pairs: Pairs, shared: Sequence[int]) -> dict[int, int]:
    """Return a number for each shared variable; it is equal for variables whose tables are all the same objects."""
    around: dict[int, list[tuple[int, bool]]] = {i: [] for i in shared}
    for (a, b), table in pairs.items():
        if a in around:
            around[a].append((id(table), False))
        if b in around:
            around[b].append((id(table), True))
    numbers: dict[object, int] = {}
    return {i: numbers.setdefault((id(unary[i]), tuple(sorted(around[i]))), len(numbers)) for i in shared}
