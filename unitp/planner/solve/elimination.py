"""Exact min-sum by variable elimination.

    minimise  sum_i unary_i(x_i) + sum_(i,j) pairs_ij(x_i, x_j)          x_i in 0 .. len(unary_i) - 1, inf forbids

`minimise` removes one variable after the other (bucket elimination, Dechter 1999): it adds all tables that mention x_i and
minimises over x_i, which leaves one table over the neighbours N_i. Choices are read back in reverse; ties go to the lowest.
`elimination_order` fixes the order beforehand: next is the variable with the least prod_(j in N_i) |x_j| / |x_i|. On planning
problems that needs smaller tables (by up to a thousand times with roles) than taking the smallest table, the fewest neighbours
or the fewest new edges first. Of equals, the variable is next around which least was eliminated. So equal layers are at the
same stage at the same time, a chain of them is halved again and again, and an operation on the same tables (the same objects)
is done once (`unitp.planner.solve.identity_cache`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from heapq import heapify, heappop, heappush
from math import log, prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import PlanError
from unitp.planner.solve.identity_cache import Memo

Table = npt.NDArray[np.float64]
Pairs = Mapping[tuple[int, int], Table]
Order = tuple[list[tuple[int, tuple[int, ...]]], int, int]
"""The variables in order, each with its neighbours at that time; the most neighbours; the entries of the largest table."""


class Solution(msgspec.Struct, frozen=True):
    """The best choice, its value, and how it was found.

    width         the most neighbours that a variable had when it was eliminated
    largest       entries of the largest table
    elimination   the order, for further calls
    """

    choice: list[int]
    value: float
    width: int
    largest: int
    elimination: Elimination


class TooWideError(Exception):
    """Exact elimination would need a table of `size` entries over `width` variables."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__(f"a table of {size} entries over {width} variables")
        self.width, self.size = width, size


class InfeasibleError(PlanError):
    """Every choice is forbidden. `variables` have no choice together, but would have one without any single one of them."""

    def __init__(self, variables: Sequence[int]) -> None:
        self.variables = tuple(variables)
        few = ", ".join(map(str, self.variables[:8])) + (", ..." if len(self.variables) > 8 else "")
        super().__init__(f"variables {few} allow no choice together")


def minimise(
    unary: Sequence[Table],
    pairs: Pairs,
    limit: int = 1_000_000,
    *,
    memo: Memo | None = None,
    elimination: Elimination | None = None,
) -> Solution:
    """Return the best choice, exactly.

    memo          results of earlier calls, used if tables are the same objects
    elimination   the order of an earlier call with the same sizes and pairs

    Raises TooWideError, before any work is done, if a table would exceed `limit` entries, and InfeasibleError if every choice
    is forbidden.
    """
    elimination = elimination or Elimination([len(u) for u in unary], pairs, limit)
    choice, value = elimination.run(unary, pairs, memo or Memo())
    if not np.isfinite(value):
        raise InfeasibleError(conflict(unary, pairs, limit))
    return Solution(choice, value, elimination.width, elimination.largest, elimination)


def elimination_order(sizes: Sequence[int], neighbours: Sequence[set[int]], limit: int) -> Order:
    """Return an `Order` for variables of these sizes. Raises TooWideError if a table would exceed `limit` entries."""
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


class Step(msgspec.Struct, frozen=True):
    """The elimination of one variable.

    scope     the variable and its neighbours at that time, in elimination order
    places    for each source, the dims of the scope that its own dims are
    sources   the numbers of the slots that are added
    """

    scope: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    sources: tuple[int, ...]


class Elimination:
    """The steps of an elimination, which depend on sizes and pairs alone; `run` takes them on tables, any number of times.

    A slot holds a table: first those of variables, then those of pairs, then the result of each step. The costs of a pair in
    which one variable has a single choice are added to the other. Dim 0 of a pair's table is of the variable eliminated first.
    """

    def __init__(
        self, sizes: Sequence[int], pairs: Iterable[tuple[int, int]], limit: int, *, split: bool = False
    ) -> None:
        """Plan the steps. Raises TooWideError if a table would exceed `limit` entries.

        With `split`, the tables of such a variable are divided into groups instead, and each group is minimised by itself (mini
        buckets; Dechter and Rish 2003): the value is then a lower bound, which the choice need not meet.
        """
        self.sizes, self.pairs, self.limit, self.split = list(sizes), list(pairs), limit, split
        near: list[set[int]] = [set() for _ in sizes]
        wide = [(a, b) for a, b in self.pairs if a != b and min(sizes[a], sizes[b]) > 1]
        for a, b in wide:
            near[a].add(b)
            near[b].add(a)
        order, self.width, self.largest = elimination_order(self.sizes, near, 10**300 if split else limit)
        self.order = [i for i, _ in order]
        self.turn = {i: number for number, i in enumerate(self.order)}
        self.steps = list(self._steps(order))

    def _steps(self, order: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[Step]:
        """Yield the steps; a table waits in the bucket of that variable of it which is eliminated first."""
        buckets: list[list[tuple[tuple[int, ...], int]]] = [[((i,), i)] for i in self.order]
        slot = len(self.sizes)
        for a, b in self.pairs:
            if a != b and min(self.sizes[a], self.sizes[b]) > 1:
                first, second = sorted((a, b), key=self.turn.__getitem__)
                buckets[self.turn[first]].append(((first, second), slot))
            slot += 1
        for (i, _), bucket in zip(order, buckets, strict=True):
            for group in self._groups(bucket):
                around = {j for over, _ in group for j in over} - {i}
                scope = (i, *sorted(around, key=self.turn.__getitem__))
                place = {j: at for at, j in enumerate(scope)}
                # small tables first, so that few additions are large; in an order that equal layers share
                ranked = sorted((self.entries(over), tuple(place[j] for j in over), source) for over, source in group)
                yield Step(scope, tuple(over for _, over, _ in ranked), tuple(source for _, _, source in ranked))
                if around:
                    buckets[self.turn[scope[1]]].append((scope[1:], slot))
                slot += 1

    def _groups(self, bucket: list[tuple[tuple[int, ...], int]]) -> list[list[tuple[tuple[int, ...], int]]]:
        """Divide a bucket into as few groups as a greedy choice finds, large tables first; one group if that is not too large."""
        if not self.split or self.entries({j for over, _ in bucket for j in over}) <= self.limit:
            return [bucket]
        groups: list[tuple[set[int], list[tuple[tuple[int, ...], int]]]] = []
        for over, source in sorted(bucket, key=lambda entry: -self.entries(entry[0])):
            for scope, group in groups:
                if self.entries(scope | set(over)) <= self.limit:
                    scope |= set(over)
                    group.append((over, source))
                    break
            else:
                groups.append((set(over), [(over, source)]))
        return [group for _, group in groups]

    def entries(self, scope: Iterable[int]) -> int:
        """Return the entries of a table over these variables."""
        return prod(self.sizes[i] for i in scope)

    def slots(self, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> list[Table]:
        """Return the given tables in the order of their slots. `pairs` are in the order given at first."""
        own, tables = list(unary), []
        for (a, b), table in zip(self.pairs, pairs.values(), strict=True):
            if a == b:
                own[a] = memo.add(own[a], memo.make("diagonal", (table,), table.diagonal))
            elif self.sizes[a] == 1:
                own[b] = memo.add(own[b], memo.row(table, 0))
            elif self.sizes[b] == 1:
                own[a] = memo.add(own[a], memo.column(table, 0))
            elif self.turn[a] > self.turn[b]:
                table = memo.turned(table)
            tables.append(table)
        return own + tables

    def run(self, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> tuple[list[int], float]:
        """Return the best choice and its value (inf if every choice is forbidden). `pairs` are in the order given at first."""
        if 0 in self.sizes:
            return [], np.inf
        slots, value, used = self.slots(unary, pairs, memo), 0.0, []
        for step in self.steps:
            tables = [slots[source] for source in step.sources]
            least = memo.make(step.places, tables, partial(_least, step.places, tables))
            slots.append(least)
            used.append(tables)
            if len(step.scope) == 1:
                value += float(least)
        choice = [0] * len(self.sizes)
        rows: Table | float = 0.0
        for number in reversed(range(len(self.steps))):
            step, tables = self.steps[number], used[number]
            at = tuple(choice[j] for j in step.scope[1:])
            if number and self.steps[number - 1].scope[0] == step.scope[0]:  # one of several groups
                rows = rows + _row(step.places, tables, at)
            elif isinstance(rows, float):
                choice[step.scope[0]] = memo.pick((step.places, at), tables, partial(_pick, step.places, tables, at))
            else:
                choice[step.scope[0]] = int((rows + _row(step.places, tables, at)).argmin())
                rows = 0.0
        return choice, value


def added(places: Sequence[tuple[int, ...]], tables: Sequence[Table]) -> Table:
    """Return the sum of tables, broadcast over all dims. `places`: for each table, the dims of the sum that its own dims are."""
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
    """Return the index of the least sum over the first dim, with the others at `at`."""
    return int(_row(places, tables, at).argmin())


def _row(places: Sequence[tuple[int, ...]], tables: Sequence[Table], at: tuple[int, ...]) -> Table:
    """Return the sums over the first dim, with the others at `at`; added in the order of `added`, so that they round alike."""
    rows: list[Table] = []
    for over, table in zip(places, tables, strict=True):
        where: tuple[slice | int, ...] = (slice(None), *(at[p - 1] for p in over[1:]))
        rows.append(table[where])
    return np.asarray(reduce(np.add, rows))


def conflict(unary: Sequence[Table], pairs: Pairs, limit: int) -> list[int]:
    """Return variables that allow no choice together, and of which none could be left out."""
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
    """Say whether some choice of `variables` is allowed; if a table would be too large to find out, assume so."""
    own, among = [unary[i] for i in variables], renamed(pairs, variables)
    try:
        elimination = Elimination([len(u) for u in own], among, limit)
    except TooWideError:
        return True
    return bool(np.isfinite(elimination.run(own, among, Memo())[1]))


def evaluate(unary: Sequence[Table], pairs: Pairs, choice: Sequence[int]) -> float:
    """Return the value of a choice, by the definition."""
    own = sum(table[x] for table, x in zip(unary, choice, strict=True))
    return float(own + sum(table[choice[a], choice[b]] for (a, b), table in pairs.items()))


def renamed(pairs: Pairs, variables: Sequence[int]) -> dict[tuple[int, int], Table]:
    """Return the pairs among `variables`, numbered by their position there."""
    place = {i: n for n, i in enumerate(variables)}
    return {(place[a], place[b]): table for (a, b), table in pairs.items() if a in place and b in place}
