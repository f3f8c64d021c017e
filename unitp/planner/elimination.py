"""Exact min-sum by variable elimination, and descent over blocks where that would be too wide.

    minimise  sum_i unary_i(x_i) + sum_(i,j) pairs_ij(x_i, x_j)          x_i in 0 .. len(unary_i) - 1, inf forbids

`minimise` removes one variable after the other (bucket elimination, Dechter 1999): all tables that mention x_i are
added up and minimised over x_i, which leaves one table over its neighbours N_i; choices are read back in reverse, ties
go to the lowest. `elimination_order` decides first, without a number being added, which goes next: the one with the
least prod_(j in N_i) |x_j| / |x_i|. On planning problems that needs smaller tables (by up to a thousand times with
roles) than taking the smallest table, the fewest neighbours or the fewest new edges first.

`descend` fixes shared variables, so that the blocks fall apart, and improves shared and blocks in turn; its bound is
the sum of what each block would cost if it could choose the shared variables for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
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


class TooWideError(Exception):
    """Eliminating exactly would need a table of `size` entries over `width` variables."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__(f"a table of {size} entries over {width} variables")
        self.width, self.size = width, size


class InfeasibleError(PlanError):
    """Every choice is forbidden; `variables` have no choice together, and any fewer of them would."""

    def __init__(self, variables: Sequence[int]) -> None:
        self.variables = tuple(variables)
        few = ", ".join(map(str, self.variables[:8])) + (", ..." if len(self.variables) > 8 else "")
        super().__init__(f"variables {few} allow no choice together")


def minimise(unary: Sequence[Table], pairs: Pairs, limit: int = 1_000_000) -> Solution:
    """The least choice, exactly.

    Raises TooWideError, before any work is done, where a table would exceed `limit` entries, and InfeasibleError where
    every choice is forbidden.
    """
    problem = Tables(unary, pairs)
    order, width, largest = elimination_order(problem.sizes, problem.near, limit)
    choice, value = problem.eliminate(order)
    if not np.isfinite(value):
        raise InfeasibleError(_conflict(unary, pairs, limit))
    return Solution(choice, value, width, largest)


def elimination_order(
    sizes: Sequence[int], neighbours: Sequence[set[int]], limit: int
) -> tuple[list[tuple[int, tuple[int, ...]]], int, int]:
    """Each variable in turn with the neighbours it then has; the most neighbours; the entries of the largest table."""
    near = [set(n) for n in neighbours]

    def left(i: int) -> float:
        return prod(sizes[j] for j in near[i]) / max(sizes[i], 1)

    price = [left(i) for i in range(len(sizes))]
    heap = [(p, i) for i, p in enumerate(price)]
    heapify(heap)
    order: list[tuple[int, tuple[int, ...]]] = []
    gone: set[int] = set()
    width = largest = 0
    while heap:
        expected, i = heappop(heap)
        if i in gone or expected != price[i]:
            continue
        around = near[i]
        entries = sizes[i] * prod(sizes[j] for j in around)
        if entries > limit:
            raise TooWideError(len(around), entries)
        order.append((i, tuple(around)))
        gone.add(i)
        width, largest = max(width, len(around)), max(largest, entries)
        for j in around:
            near[j] |= around
            near[j] -= {i, j}
        for j in around:
            price[j] = left(j)
            heappush(heap, (price[j], j))
    return order, width, largest


class Tables:
    """Tables by the variables they are over. What a variable with one choice costs belongs to its neighbour."""

    def __init__(self, unary: Sequence[Table], pairs: Pairs) -> None:
        own = [np.array(u, np.float64) for u in unary]
        self.sizes = [len(u) for u in own]
        self.near: list[set[int]] = [set() for _ in own]
        self.tables: list[tuple[tuple[int, ...], Table]] = [((i,), u) for i, u in enumerate(own)]
        for (a, b), table in pairs.items():
            if a == b:
                own[a] += np.diagonal(table)
            elif self.sizes[a] == 1:
                own[b] += table[0]
            elif self.sizes[b] == 1:
                own[a] += table[:, 0]
            else:
                self.tables.append(((a, b), np.asarray(table, np.float64)))
                self.near[a].add(b)
                self.near[b].add(a)

    def eliminate(self, order: Sequence[tuple[int, tuple[int, ...]]]) -> tuple[list[int], float]:
        """The least choice and its value (inf: there is none).

        A table waits in the bucket of whichever of its variables goes first; its dims stand in order of going, so that
        tables are added by inserting dims of size 1 and the variable that goes is dim 0.
        """
        if 0 in self.sizes:
            return [], np.inf
        turn = {i: number for number, (i, _) in enumerate(order)}
        buckets: list[list[tuple[tuple[int, ...], Table]]] = [[] for _ in order]
        for scope, table in self.tables:
            upright = len(scope) == 1 or turn[scope[0]] < turn[scope[1]]
            scope, table = (scope, table) if upright else (scope[::-1], table.T)
            buckets[turn[scope[0]]].append((scope, table))
        value = 0.0
        for (i, around), bucket in zip(order, buckets, strict=True):
            scope = (i, *sorted(around, key=turn.__getitem__))
            least = added(scope, bucket).min(axis=0)
            if around:
                buckets[turn[scope[1]]].append((scope[1:], least))
            else:
                value += float(least)
        choice = [0] * len(order)
        for (i, _), bucket in zip(reversed(order), reversed(buckets), strict=True):
            # added in the same order as above, so that rounding cannot prefer another choice
            rows: list[Table] = []
            for over, table in bucket:
                at: tuple[slice | int, ...] = (slice(None), *(choice[j] for j in over[1:]))
                rows.append(table[at])
            choice[i] = int(reduce(np.add, rows).argmin())
        return choice, value


def added(scope: tuple[int, ...], bucket: list[tuple[tuple[int, ...], Table]]) -> Table:
    """The tables of a bucket added up over all of `scope`; small ones first, so that few additions are large."""
    bucket.sort(key=lambda entry: entry[1].size)
    spread = []
    for over, table in bucket:
        has = dict(zip(over, table.shape, strict=True))
        spread.append(table if len(over) == len(scope) else table.reshape([has.get(j, 1) for j in scope]))
    return reduce(np.add, spread)


def _conflict(unary: Sequence[Table], pairs: Pairs, limit: int) -> list[int]:
    """Variables that allow no choice together, none of which could be left out."""
    left = list(range(len(unary)))
    for step in reversed([2**k for k in range(len(left).bit_length())]):
        start = 0
        while start < len(left):
            fewer = left[:start] + left[start + step :]
            if fewer and not _feasible(unary, pairs, fewer, limit):
                left = fewer
            else:
                start += step
    return left


def _feasible(unary: Sequence[Table], pairs: Pairs, variables: Sequence[int], limit: int) -> bool:
    """Whether some choice of `variables` is allowed; taken for granted where finding out is too wide."""
    problem = Tables([unary[i] for i in variables], _renamed(pairs, variables))
    try:
        order, _, _ = elimination_order(problem.sizes, problem.near, limit)
    except TooWideError:
        return True
    return bool(np.isfinite(problem.eliminate(order)[1]))


def evaluate(unary: Sequence[Table], pairs: Pairs, choice: Sequence[int]) -> float:
    """The value of a choice, straight from the definition."""
    own = sum(table[x] for table, x in zip(unary, choice, strict=True))
    return float(own + sum(table[choice[a], choice[b]] for (a, b), table in pairs.items()))


def descend(
    unary: Sequence[Table],
    pairs: Pairs,
    shared: Sequence[int],
    blocks: Sequence[Sequence[int]],
    limit: int = 20_000_000,
    *,
    tied: Sequence[int] = (),
) -> Descent:
    """Solve blocks that only meet in `shared` variables: from several starts, improve shared and blocks in turn.

    The starts are what each block wants for itself, and the best choice in which variables of equal `tied` number (a
    number per variable, their sizes equal) choose alike. Raises TooWideError where a block alone would exceed `limit`.
    """
    problem = _Blocks(unary, pairs, shared, blocks, limit)
    wishes = [problem.alone(block) for block in blocks]
    starts = [wish for wish, _ in wishes]
    if tied:
        starts.append(problem.together(tied))
    found = [best for start in starts if (best := problem.improve(start)) is not None]
    if not found:
        raise PlanError("descent over phases met forbidden choices from every start")
    choice, value = min(found, key=lambda f: f[1])
    return Descent(choice, value, sum(value for _, value in wishes))


class _Blocks:
    def __init__(
        self, unary: Sequence[Table], pairs: Pairs, shared: Sequence[int], blocks: Sequence[Sequence[int]], limit: int
    ) -> None:
        self.unary, self.pairs, self.shared, self.blocks, self.limit = unary, pairs, shared, blocks, limit

    def alone(self, block: Sequence[int]) -> tuple[dict[int, int], float]:
        """The shared choices that a block wants, and its value with its part of the shared prices."""
        part, shared = 1 / len(self.blocks), set(self.shared)
        variables = [*self.shared, *block]
        unary = [self.unary[i] * (part if i in shared else 1.0) for i in variables]
        pairs = {(a, b): table * (part if a in shared and b in shared else 1.0) for (a, b), table in self.pairs.items()}
        solution = minimise(unary, _renamed(pairs, variables), self.limit)
        return dict(zip(self.shared, solution.choice, strict=False)), solution.value

    def together(self, tied: Sequence[int]) -> dict[int, int]:
        """The shared choices that are best where tied variables choose alike."""
        place = {number: at for at, number in enumerate(dict.fromkeys(tied))}
        unary: list[Table | None] = [None] * len(place)
        for own, number in zip(self.unary, tied, strict=True):
            have = unary[place[number]]
            unary[place[number]] = own if have is None else have + own
        pairs: dict[tuple[int, int], Table] = {}
        for (a, b), table in self.pairs.items():
            _add(pairs, place[tied[a]], place[tied[b]], table)
        choice = minimise([u for u in unary if u is not None], pairs, self.limit).choice
        return {i: choice[place[tied[i]]] for i in self.shared}

    def given(self, variables: Sequence[int], fixed: Mapping[int, int]) -> dict[int, int]:
        """The best `variables` when `fixed` are given; all others do not matter to them."""
        inside = set(variables)
        unary = {i: self.unary[i].copy() for i in variables}
        for (a, b), table in self.pairs.items():
            if a in inside and b in fixed:
                unary[a] += table[:, fixed[b]]
            elif b in inside and a in fixed:
                unary[b] += table[fixed[a]]
        choice = minimise([unary[i] for i in variables], _renamed(self.pairs, variables), self.limit).choice
        return dict(zip(variables, choice, strict=True))

    def improve(self, fixed: dict[int, int]) -> tuple[list[int], float] | None:
        """Blocks given shared, shared given blocks, until the value stays; None where a block has no choice."""
        best: tuple[list[int], float] | None = None
        while True:
            rest: dict[int, int] = {}
            try:
                for block in self.blocks:
                    rest |= self.given(block, fixed)
            except InfeasibleError:
                return best
            state = {**fixed, **rest}
            choice = [state[i] for i in range(len(self.unary))]
            value = evaluate(self.unary, self.pairs, choice)
            if best is not None and value >= best[1] - 1e-12 * abs(best[1]):
                return best
            best = choice, value
            fixed = self.given(self.shared, rest)


def _renamed(pairs: Pairs, variables: Sequence[int]) -> dict[tuple[int, int], Table]:
    """The pairs among `variables`, which are numbered as they come."""
    place = {i: n for n, i in enumerate(variables)}
    return {(place[a], place[b]): table for (a, b), table in pairs.items() if a in place and b in place}


def _add(pairs: dict[tuple[int, int], Table], a: int, b: int, table: Table) -> None:
    key, upright = ((a, b), table) if a <= b else ((b, a), table.T)
    pairs[key] = pairs[key] + upright if key in pairs else upright
