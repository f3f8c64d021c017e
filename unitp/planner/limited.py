"""The least choice whose peak memory fits every rank: Lagrange for the bound, mixed plans for the choice.

    bound    max over l >= 0 of  min over choices of  cost + sum_r l_r (held_r - budget_r + least need_r)
    value    the best choice that was lowered and fits; among those that Lagrange meets, mixed variable by variable

For given l the inner minimum is an ordinary planning problem, which is taken apart by phases (`unitp.planner.descent`);
its multipliers and l, of the few ranks and phases whose budget binds, move together. Choices on either side of a budget
differ in whole layers, so a program over what they chose (`unitp.planner.milp`) comes close to it; a small problem is
solved over all choices, and exactly: what that finds and does not fit after all is forbidden, and it is solved again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from unitp.planner.descent import ROUNDS, TRIED, Apart, Shape, shortened
from unitp.planner.elimination import Pairs, Table, evaluate
from unitp.planner.footprint import Footprint
from unitp.planner.memo import Memo
from unitp.planner.milp import Program, Row, entries
from unitp.planner.problem import Problem
from unitp.planner.search import ROUNDING, Found
from unitp.program.memory import Memory

WIDE = 50_000_000
"""Entries of the largest table of a phase alone."""

SMALL = 20_000
"""Columns of a program over all choices that is worth solving."""

MIXED = 2
"""So many choices that do not fit are mixed with the best that does."""

CLOSE = 1e-4
"""A gap that is not worth more work."""

Judge = Callable[[Sequence[int]], list[Memory]]
"""What each rank needs under a choice, from the lowered programs."""


class NoFitError(Exception):
    """No choice fits (`proven`), or none was found. `least`: the peaks of the choice that needs least."""

    def __init__(self, proven: bool, least: Sequence[float], rank: int, wanted: float) -> None:
        super().__init__(f"rank {rank} needs {wanted:.0f} bytes")
        self.proven, self.least, self.rank, self.wanted = proven, list(least), rank, wanted


class Point(msgspec.Struct, frozen=True):
    """A choice that was met: its cost, and what each rank needs by its programs."""

    choice: tuple[int, ...]
    cost: float
    peaks: tuple[float, ...]


class Limited:
    """A problem under budgets, in bytes, one for each rank. `deadline`: of `time.perf_counter`."""

    def __init__(
        self, problem: Problem, shape: Shape, budgets: Sequence[float], judge: Judge, deadline: float = np.inf
    ) -> None:
        self.problem, self.shape, self.judge, self.deadline = problem, shape, judge, deadline
        self.budgets = np.array(budgets, float)
        self.footprint = Footprint(problem)
        self.apart = Apart(problem.unary, problem.pairs, shape, WIDE)
        self.points: dict[tuple[int, ...], Point] = {}
        self.watched: list[tuple[int, str]] = []
        self.bound = -np.inf
        self.prices: Table = np.zeros(0)
        self.unary: list[Table] = list(problem.unary)

    # what is asked for

    def solve(self, free: Found) -> Found:
        """The best choice that fits, beginning from the best without limits. Raises NoFitError."""
        self.bound = free.bound
        first = self._meet(free.choice)
        if self._fits(first):
            return free
        self._watch(first)
        self._require_room()
        self._narrow()
        self._climb()
        self._mix()
        found = self._best()
        if found is None or not self._proves(found):
            exact = self._exhaust()
            if (found := self._best()) is None:
                raise self._nothing(exact)
            if exact:
                return Found(list(found.choice), found.cost, found.cost, "mixed-integer program, exact")
        bound = found.cost if self._proves(found) else self.bound
        return Found(list(found.choice), found.cost, bound, "Lagrange bound, layers mixed")

    def least(self, free: Found) -> Found:
        """Of the choices whose worst rank needs least, as far as can be found, the fastest that fits."""
        self.bound = free.bound
        best = self._meet(free.choice)
        while self._add(int(np.argmax(best.peaks))):
            best = min(best, self._frugal(careful=True), key=lambda p: max(p.peaks))
        if not self._fits(best):
            raise self._nothing(False)
        self.budgets = np.minimum(self.budgets, max(best.peaks))
        self._mix()
        found = self._best() or best
        return Found(list(found.choice), found.cost, self.bound, "fewest bytes found, then layers mixed")

    def _best(self) -> Point | None:
        return min((p for p in self.points.values() if self._fits(p)), key=lambda p: p.cost, default=None)

    def _proves(self, point: Point) -> bool:
        return point.cost - self.bound <= ROUNDING * abs(point.cost)

    def _fits(self, point: Point) -> bool:
        return bool((np.array(point.peaks) <= self.budgets).all())

    def _meet(self, choice: Sequence[int]) -> Point:
        """Judge a choice, and remember it."""
        key = tuple(choice)
        if key not in self.points:
            peaks = tuple(float(m.peak) for m in self.judge(choice))
            self.points[key] = Point(key, self.problem.value(choice), peaks)
        return self.points[key]

    def _watch(self, point: Point) -> bool:
        """Take the rank into account that is most over its budget, unless it is already or none is."""
        over = np.array(point.peaks) - self.budgets
        worst = int(over.argmax())
        return bool(over[worst] > 0) and self._add(worst)

    def _add(self, rank: int) -> bool:
        if any(rank == known for known, _ in self.watched):
            return False
        self.watched += [(rank, phase.name) for phase in self.problem.phases]
        return True

    # what cannot be

    def _room(self, rank: int, phase: str) -> float:
        """Bytes that a rank may hold, at most: its budget less what some node needs whatever is chosen."""
        return float(self.budgets[rank]) - self.footprint.least_need(rank, phase)

    def _least_held(self, rank: int, phase: str) -> float:
        """The fewest bytes that a rank can hold."""
        row, memo = self.footprint.held(rank, phase), Memo()
        unary = [
            row.unary[i] if i in row.unary else memo.times(memo.make("finite", (own,), partial(_finite, own)), 1.0)
            for i, own in enumerate(self.unary)
        ]
        pairs = {
            k: row.pairs.get(k, memo.make("none", (t,), partial(np.zeros, t.shape)))
            for k, t in self.problem.pairs.items()
        }
        return Apart(unary, pairs, self.shape, WIDE).wishes(unary, pairs, memo)[1]

    def _require_room(self) -> None:
        """Raise NoFitError where what must be held is too much already."""
        for rank, phase in self.watched:
            if self._least_held(rank, phase) > self._room(rank, phase) * (1 + ROUNDING):
                self._frugal()
                raise self._nothing(True)

    def _narrow(self) -> None:
        """Forbid what could not fit even where as little as can be is held."""
        for rank, phase in self.watched:
            most = float(self.budgets[rank]) - self._least_held(rank, phase)
            for i, need in self.footprint.needs(rank, phase).items():
                if (need > most).any():
                    self.unary[i] = np.where(need > most, np.inf, self.unary[i])

    def _nothing(self, proven: bool) -> NoFitError:
        """The error, with the choice whose worst rank is least over its budget."""
        best = min(self.points.values(), key=lambda p: max(np.array(p.peaks) / self.budgets))
        rank = int((np.array(best.peaks) / self.budgets).argmax())
        return NoFitError(proven, best.peaks, rank, best.peaks[rank])

    # the bound

    def _priced(self, prices: Iterable[float], memo: Memo) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """The problem where each byte held on a rank that is watched has a price."""
        unary, pairs = list(self.unary), dict(self.problem.pairs)
        for watched, price in zip(self.watched, prices, strict=False):
            row = self.footprint.held(*watched)
            if price:
                for i, table in row.unary.items():
                    unary[i] = memo.add(unary[i], memo.times(table, float(price)))
                for key, table in row.pairs.items():
                    pairs[key] = memo.add(pairs[key], memo.times(table, float(price)))
        return unary, pairs

    def _frugal(self, careful: bool = False) -> Point:
        """A choice that holds about as little as can be, and of those a cheap one, or (`careful`) one whose nodes need little."""
        scale = 1e4 * abs(self.bound) / max(max(max(p.peaks) for p in self.points.values()), 1.0)
        memo = Memo()
        unary, pairs = self._priced([scale] * len(self.watched), memo)
        for watched in self.watched if careful else ():
            for i, need in self.footprint.needs(*watched).items():
                unary[i] = memo.add(unary[i], memo.times(need, scale * 1e-2))
        wishes, _ = self.apart.wishes(unary, pairs, memo)
        found = [f for wish in wishes if (f := self.apart.improve(unary, pairs, memo, wish)) is not None]
        return self._meet(min(found, key=lambda f: f[1])[0])

    def _climb(self) -> None:
        """Raise the bound by steps of all multipliers; what is met on the way are points."""
        frugal = self._frugal()
        while self._watch(frugal):
            frugal = self._frugal()
        prices = self.prices = np.zeros(len(self.watched))
        for number in range(ROUNDS):
            memo = Memo()
            unary, pairs = self._priced(prices, memo)
            wishes, total = self.apart.wishes(unary, pairs, memo)
            rooms = np.array([self._room(*watched) for watched in self.watched])
            now = total - float(prices @ rooms)
            self.bound = max(self.bound, now)
            if number in TRIED:
                for wish in wishes:
                    if (found := self.apart.improve(unary, pairs, memo, wish)) is not None:
                        self._watch(self._meet(found[0]))
            aim = min(
                (p.cost for p in self.points.values() if self._fits(p)),
                default=max(p.cost for p in self.points.values()),
            )
            if aim - self.bound <= CLOSE * abs(aim) or time.perf_counter() > self.deadline:
                return
            prices = np.append(prices, np.zeros(len(self.watched) - len(prices)))
            if now == self.bound:
                self.prices = prices
            slopes = self.apart.slopes(wishes)
            over = np.array([self._held_by(*watched, wishes) - self._room(*watched) for watched in self.watched])
            units = np.array([self._unit(*watched) for watched in self.watched])
            over = np.where((over < 0) & (prices <= 0), 0.0, over)
            square = sum(float(row @ row) for slope in slopes for row in slope.values()) + float(
                ((over / units) ** 2).sum()
            )
            if square == 0.0:
                return
            length = shortened(number) * (aim - now) / square
            self.apart.move(slopes, length)
            prices = np.maximum(prices + length * over / units**2, 0.0)

    def _held_by(self, rank: int, phase: str, wishes: Sequence[Mapping[int, int]]) -> float:
        """Bytes held by the rows where each phase has its wish: of what they share, the mean."""
        row, total = self.footprint.held(rank, phase), 0.0
        for i, table in row.unary.items():
            total += sum(float(table[wish[i]]) for wish in wishes) / len(wishes)
        for (a, b), table in row.pairs.items():
            having = [wish for wish in wishes if a in wish and b in wish]
            total += sum(float(table[wish[a], wish[b]]) for wish in having) / len(having)
        return total

    def _unit(self, rank: int, phase: str) -> float:
        """Bytes that one choice may make a difference of: what a step of a price is measured by."""
        spans = [float(np.ptp(table)) for table in self.footprint.held(rank, phase).unary.values() if len(table)]
        return max(float(np.mean(spans)) if spans else 1.0, 1.0)

    # choices

    def _mix(self) -> None:
        """Between a choice that fits and one that is cheaper and does not: the first layers of one, the last of the other.

        What phases share is cut in two at a node, each phase is solved anew for it, and bisection finds the cut that just fits.
        """
        memo = Memo()
        unary, pairs = self._priced(self.prices, memo)
        if (best := self._best()) is None:
            return
        over = [p for p in self.points.values() if p.cost < best.cost and not self._fits(p)]
        over.sort(key=lambda p: evaluate(unary, pairs, p.choice))
        for point in over[:MIXED]:
            for first, last in ((point, best), (best, point)):
                self._bisect(first, last, unary, pairs, memo)

    def _bisect(self, first: Point, last: Point, unary: Sequence[Table], pairs: Pairs, memo: Memo) -> None:
        """Try cuts between two choices, of which one fits, about as many as halve the layers down to one."""
        shared = self._places()
        low, high = 0, len(shared)
        while high - low > max(len(shared) // 64, 1) and time.perf_counter() < self.deadline:
            cut = (low + high) // 2
            start = {i: (first if at < cut else last).choice[i] for at, i in enumerate(shared)}
            met = self._meet(self.apart.given(unary, pairs, memo, start))
            if self._fits(met) == self._fits(last):
                low = cut
            else:
                high = cut

    def _places(self) -> list[int]:
        """What phases share, in the order in which it is read."""
        order = {node.name: at for at, node in enumerate(self.problem.graph.nodes)}
        first: dict[int, int] = {}
        for a, b in self.problem.pairs:
            for i, j in ((a, b), (b, a)):
                name = self.problem.variables[j].name
                first[i] = min(first.get(i, len(order)), order.get(name, len(order)))
        return sorted(self.shape.shared, key=lambda i: first.get(i, len(order)))

    def _exhaust(self) -> bool:
        """Solve over all choices, where there are few, until what is found fits.

        True: what is best now is the best there is, or nothing fits.
        """
        if entries(self.unary, self.problem.pairs) > SMALL:
            return False
        program = Program(self.unary, self.problem.pairs)
        for rank, budget in enumerate(self.budgets):
            for phase in (p.name for p in self.problem.phases):
                row = self.footprint.held(rank, phase)
                program.at_most(row, float(budget))
                for i, need in self.footprint.needs(rank, phase).items():
                    program.at_most(Row({**row.unary, i: need}, row.pairs), float(budget))
        while time.perf_counter() < self.deadline:
            outcome = program.solve(self.deadline - time.perf_counter())
            best = self._best()
            if outcome.choice is None or (best is not None and outcome.bound >= best.cost * (1 - ROUNDING)):
                return outcome.proven
            self.bound = max(self.bound, outcome.bound)
            if not outcome.proven:
                return False
            met = self._meet(outcome.choice)
            if self._fits(met) and met.cost <= outcome.bound * (1 + 1e-9):
                return True
            program.forbid(dict(enumerate(outcome.choice)))
        return False


def _finite(table: Table) -> Table:
    """0 where a choice is allowed."""
    return np.where(np.isfinite(table), 0.0, np.inf)
