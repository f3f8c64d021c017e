"""Exact min-marginals: the least total if one variable takes a given value, and all others are chosen best for it.

    M_i(x) = min over choices c with c_i = x of  sum_j unary_j(c_j) + sum_(j,k) pairs_jk(c_j, c_k)

One elimination leaves a tree of buckets. Bucket i holds tables over S_i = {i} + N_i and sends m_i(N_i) = min_i B_i to the
bucket of that variable of N_i which is eliminated next. A second pass sends the cost of everything else from parent p to child i:

    d_i(N_i) = min over S_p - N_i of (B_p - m_i),     B_i = tables of i + sum of its children's m + d_i

Then M_i = min over N_i of B_i for every variable at once (Shenoy and Shafer, 1990): thirty layers with all their
alternatives cost three eliminations, instead of one for each alternative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from unitp.planner.solve.elimination import (
    Elimination,
    InfeasibleError,
    Pairs,
    Table,
    TooWideError,
    added,
    evaluate,
    minimise,
)
from unitp.planner.solve.identity_cache import Memo

MOST_GIVEN = 20_000_000
"""The most entries of a table of one block whose shared variables are given."""

MOST_ENTRIES = 100_000_000
"""The most entries of all buckets together (8 bytes each; a few are held twice at a time)."""


class Marginals:
    """The min-marginals of a problem.

    Raises TooWideError, before any work is done, if a table would exceed `limit` entries or all together `MOST_ENTRIES`.
    """

    def __init__(self, unary: Sequence[Table], pairs: Pairs, limit: int = 1_000_000) -> None:
        elimination = Elimination([len(u) for u in unary], pairs, limit)
        self.sizes, self.order, self.turn = elimination.sizes, elimination.order, elimination.turn
        self.scopes = [step.scope for step in elimination.steps]
        if (entries := sum(map(elimination.entries, self.scopes))) > MOST_ENTRIES:
            raise TooWideError(elimination.width, entries)
        self.value = 0.0
        self._beliefs: list[Table] = []
        self._up(elimination, elimination.slots(unary, pairs, Memo()))
        self._down()

    def __getitem__(self, variable: int) -> Table:
        """Return the total for each value of a variable; inf for a forbidden one."""
        at = self.turn[variable]
        belief = self._beliefs[at]
        least: Table = belief.reshape(len(belief), -1).min(axis=1)
        return least + (self.value - self._part[self._root_of(at)])

    def best(self, variable: int, value: int) -> list[int]:
        """Return a best choice of all variables in which one takes this value (which must not be forbidden)."""
        chosen = {variable: value}
        at = self.turn[variable]
        while True:  # up to the root: beliefs above include all that is outside
            self._settle(at, chosen)
            if len(self.scopes[at]) == 1:
                break
            at = self.turn[self.scopes[at][1]]
        for at in reversed(range(len(self.order))):
            self._settle(at, chosen)
        return [chosen[i] for i in range(len(self.order))]

    def least(self) -> list[int]:
        """Return a best choice of all variables."""
        first = self.order[0]
        return self.best(first, int(self[first].argmin()))

    def _settle(self, at: int, chosen: dict[int, int]) -> None:
        """Choose the best values for the variables of a bucket that are not chosen yet."""
        scope = self.scopes[at]
        free = [i for i in scope if i not in chosen]
        if free:
            part = self._beliefs[at][tuple(chosen.get(i, slice(None)) for i in scope)]
            chosen.update(zip(free, map(int, np.unravel_index(int(part.argmin()), part.shape)), strict=True))

    def _root_of(self, at: int) -> int:
        while len(self.scopes[at]) > 1:
            at = self.turn[self.scopes[at][1]]
        return at

    def _up(self, elimination: Elimination, slots: list[Table]) -> None:
        self._messages: list[Table] = []
        self._part: dict[int, float] = {}
        for at, step in enumerate(elimination.steps):
            own = added(step.places, [slots[source] for source in step.sources])
            belief = np.broadcast_to(own, [self.sizes[i] for i in step.scope])
            self._beliefs.append(belief)
            least: Table = belief.min(axis=0)
            self._messages.append(least)
            slots.append(least)
            if len(step.scope) == 1:
                self._part[at] = float(least)
        self.value = sum(self._part.values())

    def _down(self) -> None:
        for at in reversed(range(len(self.order))):
            scope = self.scopes[at]
            if len(scope) == 1:
                continue
            above = self.turn[scope[1]]
            own, parent = set(scope[1:]), self.scopes[above]
            others = tuple(n for n, i in enumerate(parent) if i not in own)
            belief = _least(self._beliefs[above], others)
            with np.errstate(invalid="ignore"):
                rest = belief - self._messages[at]
            rest[np.isnan(rest)] = np.inf  # inf - inf: the value is forbidden
            self._beliefs[at] = self._beliefs[at] + rest


def _least(table: Table, dims: Sequence[int]) -> Table:
    """Return `table.min(axis=dims)`, computed a slice at a time: many times as fast if dims are short."""
    for gone, dim in enumerate(dims):
        table = reduce(np.minimum, np.moveaxis(table, dim - gone, 0))
    return table


class MarginalsGiven:
    """Upper bounds on the min-marginals of a problem whose treewidth is too high.

    The shared variables stay as in `choice`, and each block is minimised exactly. Forcing one shared variable keeps all others,
    so the totals can be reached, but need not be the least.
    """

    def __init__(
        self, unary: Sequence[Table], pairs: Pairs, blocks: Sequence[Sequence[int]], choice: Sequence[int]
    ) -> None:
        self.unary, self.pairs = unary, pairs
        self.blocks = [list(block) for block in blocks]
        self.choice = self._filled(list(choice))
        self.value = evaluate(unary, pairs, self.choice)
        self._home = {i: (number, at) for number, block in enumerate(self.blocks) for at, i in enumerate(block)}
        self._solved: dict[int, Marginals] = {}

    def __getitem__(self, variable: int) -> Table:
        """Return the total for each value of a variable; inf for a forbidden one."""
        if variable not in self._home:
            return np.array([self._total(variable, x) for x in range(len(self.unary[variable]))])
        number, at = self._home[variable]
        block = self._block(number)
        now = [self.choice[i] for i in self.blocks[number]]
        return block[at] + (self.value - float(block[at][now[at]]))

    def best(self, variable: int, value: int) -> list[int]:
        """Return a good choice of all variables in which one takes this value (which must not be forbidden)."""
        forced = [*self.choice[:variable], value, *self.choice[variable + 1 :]]
        if variable in self._home:
            number, at = self._home[variable]
            return self._with(forced, number, self._block(number).best(at, value))
        return self._filled(forced)

    def least(self) -> list[int]:
        """Return a best choice of all variables with the shared ones unchanged."""
        return list(self.choice)

    def _filled(self, choice: Sequence[int]) -> list[int]:
        """Return the best choice of every block with these values of shared variables."""
        parts = [minimise(*self._given(n, choice), MOST_GIVEN).choice for n in range(len(self.blocks))]
        found = list(choice)
        for number, part in enumerate(parts):
            found = self._with(found, number, part)
        return found

    def _with(self, choice: Sequence[int], number: int, part: Sequence[int]) -> list[int]:
        own = dict(zip(self.blocks[number], part, strict=True))
        return [own.get(i, x) for i, x in enumerate(choice)]

    def _total(self, variable: int, value: int) -> float:
        if not np.isfinite(self.unary[variable][value]):
            return float("inf")
        try:
            return evaluate(self.unary, self.pairs, self.best(variable, value))
        except InfeasibleError:
            return float("inf")

    def _block(self, number: int) -> Marginals:
        if number not in self._solved:
            self._solved[number] = Marginals(*self._given(number, self.choice), MOST_GIVEN)
        return self._solved[number]

    def _given(self, number: int, choice: Sequence[int]) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """Return the problem of one block with everything outside it fixed."""
        block = self.blocks[number]
        place = {i: at for at, i in enumerate(block)}
        unary = [self.unary[i] for i in block]
        pairs: dict[tuple[int, int], Table] = {}
        for (a, b), table in self.pairs.items():
            if a in place and b in place:
                pairs[place[a], place[b]] = table
            elif a in place:
                unary[place[a]] = unary[place[a]] + table[:, choice[b]]
            elif b in place:
                unary[place[b]] = unary[place[b]] + table[choice[a]]
        return unary, pairs
