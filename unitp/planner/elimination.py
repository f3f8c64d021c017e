"""Exact min-sum by variable elimination, and descent over blocks where that would be too wide.

    minimise  sum_i unary_i(x_i) + sum_(i,j) pairs_ij(x_i, x_j)

`minimise` removes one variable after the other: all tables that mention x_i are added up and minimised over x_i, which leaves one
table over its neighbours; the smallest such table goes first. The choices are read back in reverse. `descend` fixes
shared variables, so that the blocks fall apart, and improves shared and blocks in turn; its bound is the sum of what each
block would cost if it could choose the shared variables for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import PlanError

Table = npt.NDArray[np.float64]
Pairs = Mapping[tuple[int, int], Table]


class Solution(msgspec.Struct, frozen=True):
    """`width`: most neighbours of an eliminated variable; `largest`: entries of the largest table."""

    choice: list[int]
    value: float
    width: int
    largest: int


class Descent(msgspec.Struct, frozen=True):
    """The best choice found, its value, and a lower bound on any choice's."""

    choice: list[int]
    value: float
    bound: float


class TooWide(Exception):
    """Eliminating exactly would need a table of `size` entries over `width` variables."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__(f"a table of {size} entries over {width} variables")
        self.width, self.size = width, size


def minimise(unary: Sequence[Table], pairs: Pairs, limit: int = 1_000_000) -> Solution:
    """The least choice, exactly. Raises TooWide where a table would exceed `limit`, PlanError where every choice is forbidden (inf)."""
    work = _Elimination(unary, pairs, limit)
    return work.run()


class _Elimination:
    def __init__(self, unary: Sequence[Table], pairs: Pairs, limit: int) -> None:
        self.limit = limit
        self.sizes = [len(u) for u in unary]
        own = [u.astype(np.float64) for u in unary]
        self.tables: list[dict[tuple[int, ...], Table]] = [{(i,): u} for i, u in enumerate(own)]
        self.near: list[set[int]] = [set() for _ in unary]
        for (a, b), table in pairs.items():
            # a variable with one choice is no neighbour: what it costs belongs to the other
            if self.sizes[a] == 1:
                own[b] += table[0]
            elif self.sizes[b] == 1:
                own[a] += table[:, 0]
            else:
                self._put((a, b), table)
                self.near[a].add(b)
                self.near[b].add(a)

    def _put(self, scope: tuple[int, ...], table: Table) -> None:
        """Give a table to the variables that it is over; tables over the same variables are added."""
        home = self.tables[scope[0]]
        total = home[scope] + table if scope in home else table
        for i in scope:
            self.tables[i][scope] = total

    def _entries(self, i: int) -> int:
        return self.sizes[i] * prod(self.sizes[j] for j in self.near[i])

    def run(self) -> Solution:
        heap = [(self._entries(i), i) for i in range(len(self.sizes))]
        heapify(heap)
        gone: list[tuple[int, tuple[int, ...], npt.NDArray[np.intp]]] = []
        done = [False] * len(self.sizes)
        value, width, largest = 0.0, 0, 0
        while heap:
            size, i = heappop(heap)
            if done[i] or size != self._entries(i):
                continue
            if size > self.limit:
                raise TooWide(len(self.near[i]), size)
            scope = tuple(sorted(self.near[i]))
            total = self._sum(i, scope)
            gone.append((i, scope, total.argmin(axis=-1)))
            least = total.min(axis=-1)
            done[i], width, largest = True, max(width, len(scope)), max(largest, size)
            value += self._remove(i, scope, least, heap)
        if not np.isfinite(value):
            raise PlanError("every choice is forbidden by some constraint")
        choice = [0] * len(self.sizes)
        for i, scope, best in reversed(gone):
            choice[i] = int(best[tuple(choice[j] for j in scope)])
        return Solution(choice, value, width, largest)

    def _sum(self, i: int, scope: tuple[int, ...]) -> Table:
        """All tables that mention i, added up over (scope..., i)."""
        order = (*scope, i)
        total = np.zeros([self.sizes[j] for j in order])
        for over, table in self.tables[i].items():
            places = [order.index(j) for j in over]
            turned = table.transpose(np.argsort(places)) if len(over) > 1 else table
            shape = [1] * len(order)
            for j in over:
                shape[order.index(j)] = self.sizes[j]
            total += turned.reshape(shape)
        return total

    def _remove(self, i: int, scope: tuple[int, ...], least: Table, heap: list[tuple[int, int]]) -> float:
        """Replace i's tables by one over its neighbours; returns the value where there are none."""
        for over in self.tables[i]:
            for j in over:
                if j != i:
                    del self.tables[j][over]
        self.tables[i] = {}
        for j in scope:
            self.near[j] |= set(scope) - {j}
            self.near[j].discard(i)
        if not scope:
            return float(least)
        self._put(scope, least)
        for j in scope:
            heappush(heap, (self._entries(j), j))
        return 0.0


def evaluate(unary: Sequence[Table], pairs: Pairs, choice: Sequence[int]) -> float:
    """The value of a choice, straight from the definition."""
    return float(
        sum(u[x] for u, x in zip(unary, choice, strict=True)) + sum(t[choice[a], choice[b]] for (a, b), t in pairs.items())
    )


def descend(
    unary: Sequence[Table], pairs: Pairs, shared: Sequence[int], blocks: Sequence[Sequence[int]], limit: int = 20_000_000
) -> Descent:
    """Solve blocks that only meet in `shared` variables: from each block's own wishes, improve shared and blocks in turn."""
    problem = _Blocks(unary, pairs, shared, blocks, limit)
    wishes = [problem.alone(block) for block in blocks]
    bound = sum(value for _, value in wishes)
    found = [problem.improve(dict(zip(shared, wish, strict=True))) for wish, _ in wishes]
    choice, value = min(found, key=lambda f: f[1])
    return Descent(choice, value, bound)


class _Blocks:
    def __init__(
        self, unary: Sequence[Table], pairs: Pairs, shared: Sequence[int], blocks: Sequence[Sequence[int]], limit: int
    ) -> None:
        self.unary, self.pairs, self.shared, self.blocks, self.limit = unary, pairs, shared, blocks, limit

    def alone(self, block: Sequence[int]) -> tuple[list[int], float]:
        """The shared choices that a block wants, and its value with its part of the shared prices."""
        part, shared = 1 / len(self.blocks), set(self.shared)
        variables = [*self.shared, *block]
        inside = set(variables)
        unary = [self.unary[i] * (part if i in shared else 1.0) for i in variables]
        pairs = {
            (a, b): table * (part if a in shared and b in shared else 1.0)
            for (a, b), table in self.pairs.items()
            if a in inside and b in inside
        }
        solution = minimise(unary, _renamed(pairs, variables), self.limit)
        return solution.choice[: len(self.shared)], solution.value

    def given(self, variables: Sequence[int], fixed: Mapping[int, int]) -> list[int]:
        """The best `variables` when `fixed` are given; all others do not matter to them."""
        inside = set(variables)
        unary = {i: self.unary[i].copy() for i in variables}
        pairs = {}
        for (a, b), table in self.pairs.items():
            if a in inside and b in inside:
                pairs[a, b] = table
            elif a in inside and b in fixed:
                unary[a] += table[:, fixed[b]]
            elif b in inside and a in fixed:
                unary[b] += table[fixed[a]]
        return minimise([unary[i] for i in variables], _renamed(pairs, variables), self.limit).choice

    def improve(self, fixed: dict[int, int]) -> tuple[list[int], float]:
        """Blocks given shared, shared given blocks, until the value stays."""
        value = np.inf
        while True:
            state = {i: fixed[i] for i in self.shared}
            for block in self.blocks:
                state |= dict(zip(block, self.given(block, {i: fixed[i] for i in self.shared}), strict=True))
            now = evaluate(self.unary, self.pairs, [state[i] for i in range(len(self.unary))])
            if now >= value * (1 - 1e-12):
                return best, float(value)
            value, best = now, [state[i] for i in range(len(self.unary))]
            rest = {i: x for i, x in state.items() if i not in fixed}
            fixed = dict(zip(self.shared, self.given(self.shared, rest), strict=True))


def _renamed(pairs: Pairs, variables: Sequence[int]) -> dict[tuple[int, int], Table]:
    place = {i: n for n, i in enumerate(variables)}
    out = {}
    for (a, b), table in pairs.items():
        x, y = place[a], place[b]
        out[(x, y) if x < y else (y, x)] = table if x < y else table.T
    return out
