"""Exact min-sum by variable elimination.

    minimise  sum_i unary_i(x_i) + sum_(i,j) pairs_ij(x_i, x_j)          x_i in 0 .. len(unary_i) - 1, inf forbids

`minimise` removes one variable after the other (bucket elimination, Dechter 1999): all tables that mention x_i are
added up and minimised over x_i, which leaves one table over its neighbours N_i; choices are read back in reverse, ties
go to the lowest. `elimination_order` decides first, without a number being added, which goes next: the one with the
least prod_(j in N_i) |x_j| / |x_i|. On planning problems that needs smaller tables (by up to a thousand times with
roles) than taking the smallest table, the fewest neighbours or the fewest new edges first. Of equals the one goes next
around which least was eliminated: equal layers then do equal things at the same time, a chain of them is halved again
and again, and what was done once to the same tables (the same objects) is not done again (`unitp.planner.memo`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from heapq import heapify, heappop, heappush
from math import log, prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import PlanError
from unitp.planner.memo import Memo

Table = npt.NDArray[np.float64]
Pairs = Mapping[tuple[int, int], Table]
Order = tuple[list[tuple[int, tuple[int, ...]]], int, int]
"""Each variable in turn with the neighbours it then has; the most neighbours; the entries of the largest table."""


class Solution(msgspec.Struct, frozen=True):
    """`width`: most neighbours of an eliminated variable; `largest`: entries of the largest table."""

    choice: list[int]
    value: float
    width: int
    largest: int


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


def minimise(unary: Sequence[Table], pairs: Pairs, limit: int = 1_000_000, *, memo: Memo | None = None) -> Solution:
    """The least choice, exactly. `memo`: what earlier calls left, of use where tables are the same objects.

    Raises TooWideError, before any work is done, where a table would exceed `limit` entries, and InfeasibleError where
    every choice is forbidden.
    """
    problem = Tables(unary, pairs, memo)
    order, width, largest = elimination_order(problem.sizes, problem.near, limit)
    choice, value = problem.eliminate(order)
    if not np.isfinite(value):
        raise InfeasibleError(_conflict(unary, pairs, limit))
    return Solution(choice, value, width, largest)


def elimination_order(sizes: Sequence[int], neighbours: Sequence[set[int]], limit: int) -> Order:
    """Each variable in turn with the neighbours it then has; the most neighbours; the entries of the largest table."""
    near = [set(n) for n in neighbours]
    logs = [round(log(max(size, 1)), 9) for size in sizes]

    def left(i: int) -> float:
        return round(sum(logs[j] for j in near[i]) - logs[i], 6)

    price = [left(i) for i in range(len(sizes))]
    depth = [0] * len(sizes)
    heap = [(p, 0, i) for i, p in enumerate(price)]
    heapify(heap)
    order: list[tuple[int, tuple[int, ...]]] = []
    gone: set[int] = set()
    width = largest = 0
    while heap:
        expected, deep, i = heappop(heap)
        if i in gone or expected != price[i] or deep != depth[i]:
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
            price[j], depth[j] = left(j), max(depth[j], deep + 1)
            heappush(heap, (price[j], depth[j], j))
    return order, width, largest


class Tables:
    """Tables by the variables they are over. What a variable with one choice costs belongs to its neighbour."""

    def __init__(self, unary: Sequence[Table], pairs: Pairs, memo: Memo | None = None) -> None:
        self.memo = memo = memo or Memo()
        own = list(unary)
        self.sizes = [len(u) for u in own]
        self.near: list[set[int]] = [set() for _ in own]
        self.tables: list[tuple[tuple[int, ...], Table]] = []
        for (a, b), table in pairs.items():
            if a == b:
                own[a] = memo.add(own[a], memo.make("diagonal", (table,), table.diagonal))
            elif self.sizes[a] == 1:
                own[b] = memo.add(own[b], memo.row(table, 0))
            elif self.sizes[b] == 1:
                own[a] = memo.add(own[a], memo.column(table, 0))
            else:
                self.tables.append(((a, b), table))
                self.near[a].add(b)
                self.near[b].add(a)
        self.tables += [((i,), u) for i, u in enumerate(own)]

    def buckets(self, turn: Sequence[int] | Mapping[int, int]) -> list[list[tuple[tuple[int, ...], Table]]]:
        """Each table in the bucket of whichever of its variables goes first, its dims in order of going.

        So tables are added by inserting dims of size 1, and the variable that goes is dim 0.
        """
        found: list[list[tuple[tuple[int, ...], Table]]] = [[] for _ in self.sizes]
        for scope, table in self.tables:
            upright = len(scope) == 1 or turn[scope[0]] < turn[scope[1]]
            scope, table = (scope, table) if upright else (scope[::-1], self.memo.turned(table))
            found[turn[scope[0]]].append((scope, table))
        return found

    def eliminate(self, order: Sequence[tuple[int, tuple[int, ...]]]) -> tuple[list[int], float]:
        """The least choice and its value (inf: there is none)."""
        if 0 in self.sizes:
            return [], np.inf
        turn = {i: number for number, (i, _) in enumerate(order)}
        buckets = self.buckets(turn)
        value, done = 0.0, []
        for (i, around), bucket in zip(order, buckets, strict=True):
            scope = (i, *sorted(around, key=turn.__getitem__))
            place = {j: at for at, j in enumerate(scope)}
            # small tables first, so that few additions are large; in an order that equal layers share
            ranked = sorted((table.size, tuple(place[j] for j in over), n) for n, (over, table) in enumerate(bucket))
            what = tuple(over for _, over, _ in ranked)
            tables = [bucket[n][1] for _, _, n in ranked]
            least = self.memo.make(what, tables, partial(_least, what, tables))
            done.append((scope, what, tables))
            if around:
                buckets[turn[scope[1]]].append((scope[1:], least))
            else:
                value += float(least)
        choice = [0] * len(order)
        for scope, what, tables in reversed(done):
            at = tuple(choice[j] for j in scope[1:])
            choice[scope[0]] = self.memo.pick((what, at), tables, partial(_pick, what, tables, at))
        return choice, value


def added(places: Sequence[tuple[int, ...]], tables: Sequence[Table]) -> Table:
    """Tables added up over all dims. `places`: which dims a table's own are."""
    count = 1 + max(max(over) for over in places)
    size = dict(zip((p for over in places for p in over), (n for t in tables for n in t.shape), strict=True))
    spread = [
        table if len(over) == count else table.reshape([size[p] if p in over else 1 for p in range(count)])
        for over, table in zip(places, tables, strict=True)
    ]
    return reduce(np.add, spread)


def _least(places: Sequence[tuple[int, ...]], tables: Sequence[Table]) -> Table:
    return np.asarray(added(places, tables).min(axis=0))


def _pick(places: Sequence[tuple[int, ...]], tables: Sequence[Table], at: tuple[int, ...]) -> int:
    """The least of the first dim where the others are `at`; added as in `added`, so that rounding prefers no other."""
    rows: list[Table] = []
    for over, table in zip(places, tables, strict=True):
        where: tuple[slice | int, ...] = (slice(None), *(at[p - 1] for p in over[1:]))
        rows.append(table[where])
    return int(reduce(np.add, rows).argmin())


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
    problem = Tables([unary[i] for i in variables], renamed(pairs, variables))
    try:
        order, _, _ = elimination_order(problem.sizes, problem.near, limit)
    except TooWideError:
        return True
    return bool(np.isfinite(problem.eliminate(order)[1]))


def evaluate(unary: Sequence[Table], pairs: Pairs, choice: Sequence[int]) -> float:
    """The value of a choice, straight from the definition."""
    own = sum(table[x] for table, x in zip(unary, choice, strict=True))
    return float(own + sum(table[choice[a], choice[b]] for (a, b), table in pairs.items()))


def renamed(pairs: Pairs, variables: Sequence[int]) -> dict[tuple[int, int], Table]:
    """The pairs among `variables`, which are numbered as they come."""
    place = {i: n for n, i in enumerate(variables)}
    return {(place[a], place[b]): table for (a, b), table in pairs.items() if a in place and b in place}
