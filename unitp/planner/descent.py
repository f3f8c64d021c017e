"""Where all variables together are too wide: blocks that meet only in shared variables, improved in turn from several starts.

    bound    sum over blocks of what the block would cost if it could choose the shared variables for itself, each with an
             equal part of what these cost
    value    shared given blocks, blocks given shared, until it stays; the best of several starts

The phases of a plan are such blocks, parameters and caches what they share. A choice found so is as good as any where its
value meets the bound, and never called so otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from unitp.errors import PlanError
from unitp.planner.elimination import InfeasibleError, Pairs, Table, evaluate, minimise, renamed
from unitp.planner.memo import Memo


class Descent(msgspec.Struct, frozen=True):
    """The best choice found, its value, and a lower bound on any choice's."""

    choice: list[int]
    value: float
    bound: float


def descend(
    unary: Sequence[Table],
    pairs: Pairs,
    shared: Sequence[int],
    blocks: Sequence[Sequence[int]],
    limit: int = 50_000_000,
    *,
    tied: Sequence[int] = (),
    memo: Memo | None = None,
) -> Descent:
    """The best of descents from what each block wants for itself.

    With `tied` also from the best choice in which variables of equal number (one per variable; their sizes are equal)
    choose alike. Raises TooWideError where a block alone would exceed `limit`.
    """
    problem = _Blocks(unary, pairs, shared, blocks, limit, memo or Memo())
    wishes = [problem.alone(block) for block in blocks]
    starts = [wish for wish, _ in wishes]
    if tied:
        starts.append(problem.together(tied))
    found: list[tuple[list[int], float]] = []
    for number, start in enumerate(starts):
        if start not in starts[:number] and (best := problem.improve(start)) is not None:
            found.append(best)
    if not found:
        raise PlanError("descent over phases met forbidden choices from every start")
    choice, value = min(found, key=lambda f: f[1])
    return Descent(choice, value, sum(value for _, value in wishes))


class _Blocks:
    def __init__(
        self,
        unary: Sequence[Table],
        pairs: Pairs,
        shared: Sequence[int],
        blocks: Sequence[Sequence[int]],
        limit: int,
        memo: Memo,
    ) -> None:
        self.unary, self.pairs, self.shared, self.blocks, self.limit = unary, pairs, shared, blocks, limit
        self.memo = memo

    def alone(self, block: Sequence[int]) -> tuple[dict[int, int], float]:
        """The shared choices that a block wants, and its value with its part of the shared prices."""
        part, shared = 1 / len(self.blocks), set(self.shared)
        variables, memo = [*self.shared, *block], self.memo
        unary = [memo.times(self.unary[i], part) if i in shared else self.unary[i] for i in variables]
        among = {(a, b): memo.times(t, part) for (a, b), t in self.pairs.items() if a in shared and b in shared}
        solution = minimise(unary, renamed({**self.pairs, **among}, variables), self.limit, memo=memo)
        return dict(zip(self.shared, solution.choice, strict=False)), solution.value

    def together(self, tied: Sequence[int]) -> dict[int, int]:
        """The shared choices that are best where tied variables choose alike."""
        place = {number: at for at, number in enumerate(dict.fromkeys(tied))}
        unary: list[Table | None] = [None] * len(place)
        for own, number in zip(self.unary, tied, strict=True):
            have = unary[place[number]]
            unary[place[number]] = own if have is None else self.memo.add(have, own)
        pairs: dict[tuple[int, int], Table] = {}
        for (a, b), table in self.pairs.items():
            first, second = place[tied[a]], place[tied[b]]
            key, upright = ((first, second), table) if first <= second else ((second, first), self.memo.turned(table))
            pairs[key] = self.memo.add(pairs[key], upright) if key in pairs else upright
        choice = minimise([u for u in unary if u is not None], pairs, self.limit, memo=self.memo).choice
        return {i: choice[place[tied[i]]] for i in self.shared}

    def given(self, variables: Sequence[int], fixed: Mapping[int, int]) -> dict[int, int]:
        """The best `variables` when `fixed` are given; all others do not matter to them."""
        memo, inside = self.memo, set(variables)
        unary = {i: self.unary[i] for i in variables}
        for (a, b), table in self.pairs.items():
            if a in inside and b in fixed:
                unary[a] = memo.add(unary[a], memo.column(table, fixed[b]))
            elif b in inside and a in fixed:
                unary[b] = memo.add(unary[b], memo.row(table, fixed[a]))
        solution = minimise([unary[i] for i in variables], renamed(self.pairs, variables), self.limit, memo=memo)
        return dict(zip(variables, solution.choice, strict=True))

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
