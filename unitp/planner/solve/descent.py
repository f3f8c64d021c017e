"""Where all variables together are too wide: blocks that meet only in shared variables, taken apart by multipliers.

    bound(d)    sum over blocks p of  min over choices of  block p + its part of the shared prices + d_p . shared,   sum_p d_p = 0
    value       shared given blocks, blocks given shared, in turn until it stays; from what each block wants, for each d

The phases of a plan are such blocks, parameters and caches what they share. Where two blocks want different things of a
shared variable, d makes the one cheaper and the other dearer (subgradients with Polyak's step), which raises the bound
and brings their wishes together. Shared variables in equal places have equal multipliers, so that equal layers stay
equal and are worked out once. A choice is as good as any where its value meets the bound, and never called so otherwise.
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
"""Steps of the multipliers at most."""

LIMIT = 1_000_000
"""Entries of the largest table of a block alone."""

TRIED = (0, 2, 5, 9, 14, 20, 27, ROUNDS - 1)
"""The steps after which what blocks want is a start."""

CLOSE = 3e-4
"""A gap that is not worth a step."""

PATIENCE = 6
"""So many steps must gain at least a twentieth of the gap."""


class Shape(msgspec.Struct, frozen=True):
    """How a problem falls apart: `blocks` meet only in `shared` variables."""

    shared: Sequence[int]
    blocks: Sequence[Sequence[int]]


class Descent(msgspec.Struct, frozen=True):
    """The best choice found, its value, and a lower bound on any choice's."""

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
    """The best of descents from what each block wants for itself, with up to `rounds` steps of the multipliers.

    Where a block alone would exceed `limit` entries, its part of the bound is bounded from below in turn. `apart`: what an
    earlier call on a problem of the same sizes and pairs left, whose multipliers are near the best where prices are.
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
    """Of Polyak's step, in its round: shorter and shorter, for what it aims at is above the best bound."""
    return float(0.9 ** (number / 4))


class Apart:
    """A problem taken apart. Tables are given anew to each method, for their numbers may change, not their sizes."""

    def __init__(self, unary: Sequence[Table], pairs: Pairs, shape: Shape, limit: int) -> None:
        self.sizes, self.shape, self.limit = [len(u) for u in unary], shape, limit
        self.inside = set(shape.shared)
        self.group = _alike(unary, pairs, shape.shared)
        sizes = {number: len(unary[i]) for i, number in self.group.items()}
        self.multipliers = [{number: np.zeros(n) for number, n in sizes.items()} for _ in shape.blocks]
        self._eliminations: dict[Hashable, Elimination] = {}

    def wishes(self, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> tuple[list[dict[int, int]], float]:
        """What each block wants, of itself and of what is shared, and what all blocks together then cost.

        This is a lower bound on any choice.
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
        """How far each block wants more of a shared choice than the others do."""
        counts = [{number: np.zeros(len(d)) for number, d in self.multipliers[0].items()} for _ in wishes]
        for count, wish in zip(counts, wishes, strict=True):
            for i in self.shape.shared:
                count[self.group[i]][wish[i]] += 1.0
        mean = {number: sum(count[number] for count in counts) / len(counts) for number in counts[0]} if counts else {}
        return [{number: row - mean[number] for number, row in count.items()} for count in counts]

    def move(self, slopes: Sequence[Mapping[int, Table]], length: float) -> None:
        """Make dearer to a block what it wants more of than others."""
        for own, slope in zip(self.multipliers, slopes, strict=True):
            for number, row in slope.items():
                if row.any():
                    own[number] = own[number] + row * length

    def improve(
        self, unary: Sequence[Table], pairs: Pairs, memo: Memo, start: Mapping[int, int]
    ) -> tuple[list[int], float] | None:
        """Blocks given shared, shared given blocks, until the value stays; None where a block has no choice."""
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
        """The best choice with these shared ones. Raises InfeasibleError where a block has none."""
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
        """The best `variables` when `fixed` are given; all others do not matter to them."""
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
        """As `minimise`; what is to be done in which order is found out once for each `key`.

        Where that is too wide, the value is a lower bound, and the choice one that need not meet it.
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
    """A number for each shared variable, equal where all its tables are the same objects."""
    around: dict[int, list[tuple[int, bool]]] = {i: [] for i in shared}
    for (a, b), table in pairs.items():
        if a in around:
            around[a].append((id(table), False))
        if b in around:
            around[b].append((id(table), True))
    numbers: dict[object, int] = {}
    return {i: numbers.setdefault((id(unary[i]), tuple(sorted(around[i]))), len(numbers)) for i in shared}
