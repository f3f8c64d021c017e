"""Find the fastest choice whose peak memory fits every rank: a Lagrangian gives the bound, mixed plans give the choice.

    bound    max over l >= 0 of  min over choices of  cost + sum_r l_r (held_r - budget_r + least need_r)
    value    the best choice that was lowered and fits: choices found at some l, and mixtures of them

Among the choices that fit and are as fast as the best of them (`unitp.planner.tie_break`), the one that holds fewest bytes is taken.

For given l, the inner minimum is an ordinary planning problem, decomposed by phases (`unitp.planner.solve.descent`). Only the few
ranks and phases whose budget binds have an l. It moves together with the multipliers of the phases; if all phases are one block, it
moves alone, by cutting planes. Choices on either side of a budget are mixed: bytes are cheap in some layers and expensive in others,
and bisection finds how many layers to take from which. A small problem is solved exactly over all choices
(`unitp.planner.solve.integer_programs`): a choice that turns out not to fit is forbidden, and the problem is solved again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial

import msgspec
import numpy as np

from unitp.planner.fastest import ROUNDING, Found
from unitp.planner.problem.blocks import layers
from unitp.planner.problem.footprint import Footprint
from unitp.planner.problem.problem import Problem
from unitp.planner.solve.descent import ROUNDS, TRIED, Apart, Shape, shortened
from unitp.planner.solve.elimination import Elimination, InfeasibleError, Table, TooWideError, evaluate
from unitp.planner.solve.identity_cache import Memo
from unitp.planner.solve.integer_programs import Program, Row, entries, highest
from unitp.planner.tie_break import TOLERANCE
from unitp.program.memory import Memory

NARROW = 2_000_000
"""The most entries of a table for eliminating all phases as one block."""

WIDE = 50_000_000
"""The most entries of a table for eliminating one phase."""

SMALL = 20_000
"""The most columns of an integer program over all choices that is solved."""

MIXED = (2, 1, 1, 1)
"""In each round, mix this many choices that do not fit with the best that does, while that finds new choices."""

APART = (0.98, 1.02)
"""Factors of the multiplier at which two choices cost the same: below it the first is better, above it the second."""

CLOSE = 1e-4
"""Stop at this relative gap."""

Judge = Callable[[Sequence[int]], list[Memory]]
"""A function from a choice to the memory that each rank needs, measured on the lowered programs."""


class NoFitError(Exception):
    """No choice fits (`proven`), or none that fits was found.

    least   the memory that each rank needs under the choice that is closest to its budgets
    rank    the rank that exceeds its budget most under that choice
    """

    def __init__(self, proven: bool, least: Sequence[Memory], rank: int) -> None:
        super().__init__(f"rank {rank} needs {least[rank].peak} bytes")
        self.proven, self.least, self.rank = proven, list(least), rank


class Point(msgspec.Struct, frozen=True):
    """A choice that was judged: its seconds, the bytes that all ranks hold, and the memory that each rank needs."""

    choice: tuple[int, ...]
    cost: float
    held: float
    needs: tuple[Memory, ...]

    @property
    def peaks(self) -> list[float]:
        """The peak bytes of each rank."""
        return [float(need.peak) for need in self.needs]


class Watch(msgspec.Struct, frozen=True):
    """A lower bound on the bytes of a rank in a phase, by choices, and the most (`room`) that it may be."""

    rank: int
    phase: str
    row: Row
    room: float


class Limited:
    """A problem with a budget in bytes for each rank. `deadline`: a time of `time.perf_counter`."""

    def __init__(
        self, problem: Problem, shape: Shape, budgets: Sequence[float], judge: Judge, deadline: float = np.inf
    ) -> None:
        self.problem, self.judge, self.deadline = problem, judge, deadline
        self.phases = shape
        self.budgets = np.array(budgets, float)
        self.points: dict[tuple[int, ...], Point] = {}
        self.watched: dict[tuple[int, str, int], Watch] = {}
        self.bound = -np.inf
        self.prices: Table = np.zeros(0)
        self.unary: list[Table] = list(problem.unary)
        self._held: dict[tuple[int, str], float] = {}

    # made only if some budget binds

    @cached_property
    def footprint(self) -> Footprint:
        """The lower bounds on the bytes of each rank."""
        return Footprint(self.problem)

    @cached_property
    def shape(self) -> Shape:
        """All phases as one block if the treewidth is low, else one block for each phase."""
        try:
            Elimination([len(u) for u in self.problem.unary], self.problem.pairs, NARROW)
        except TooWideError:
            return self.phases
        return Shape(self.phases.shared, [[i for block in self.phases.blocks for i in block]])

    @cached_property
    def apart(self) -> Apart:
        """The decomposition of the problem into `shape`."""
        return Apart(self.problem.unary, self.problem.pairs, self.shape, WIDE)

    @cached_property
    def _layers(self) -> list[list[int]]:
        return layers(self.problem)

    # the three questions

    def solve(self, free: Found, fastest: Found) -> Found:
        """Return the best choice that fits. Raises NoFitError if none was found.

        free, fastest   the best choices without limits: with the tie-break by bytes held, and without it
        """
        self.bound = free.bound
        first = self._meet(free.choice)
        if self._fits(first):
            return free
        self._meet(fastest.choice)
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
                return self._chosen(found, found.cost, "mixed-integer program, exact")
        return self._chosen(found, found.cost if self._proves(found) else self.bound, "Lagrange bound, layers mixed")

    def smallest(self, free: Found) -> Point:
        """Return the choice, of those found, whose highest peak over all ranks is lowest."""
        self.bound = free.bound
        best = self._meet(free.choice)
        while self._add(int(np.argmax(best.peaks)), best):
            best = min(best, self._frugal(careful=True), key=lambda p: max(p.peaks))
        return best

    def least(self, free: Found) -> Found:
        """Return the fastest choice found whose highest peak is as low as that of `smallest`. Raises NoFitError if that does not fit."""
        best = self.smallest(free)
        if not self._fits(best):
            raise self._nothing(False)
        self.budgets = np.minimum(self.budgets, max(best.peaks))
        self._mix()
        fastest = self._best() or best
        found = self._frugal_of(fastest)
        peak, least = int(max(found.peaks)), max(int(self._least_peak(rank, phase)) for rank, phase, _ in self.watched)
        how = "bytes priced above time, then layers mixed"
        return Found(list(found.choice), found.cost, self.bound, how, peak, min(least, peak), fastest.cost)

    def _chosen(self, fastest: Point, bound: float, solver: str) -> Found:
        found = self._frugal_of(fastest)
        return Found(list(found.choice), found.cost, bound, solver, fastest=fastest.cost)

    def _frugal_of(self, fastest: Point) -> Point:
        """Return the choice that holds least among those that were judged, fit and are as fast."""
        near = (p for p in self.points.values() if self._fits(p) and p.cost <= fastest.cost * (1 + TOLERANCE))
        return min(near, key=lambda p: (p.held, p.cost), default=fastest)

    def _best(self) -> Point | None:
        return min((p for p in self.points.values() if self._fits(p)), key=lambda p: p.cost, default=None)

    def _proves(self, point: Point) -> bool:
        return point.cost - self.bound <= ROUNDING * abs(point.cost)

    def _fits(self, point: Point) -> bool:
        return bool((np.array(point.peaks) <= self.budgets).all())

    def _meet(self, choice: Sequence[int]) -> Point:
        """Return a choice with its cost and memory, judged once."""
        key = tuple(choice)
        if key not in self.points:
            value, held = self.problem.value(choice), self.problem.held(choice)
            self.points[key] = Point(key, value, held, tuple(self.judge(choice)))
        return self.points[key]

    def _watch(self, point: Point) -> bool:
        """Watch the rank that exceeds its budget most at this point. False: no rank does, or its rows are watched already."""
        over = np.array(point.peaks) - self.budgets
        worst = int(over.argmax())
        return bool(over[worst] > 0) and self._add(worst, point)

    def _add(self, rank: int, point: Point) -> bool:
        """Watch two rows of a rank in each phase: the bytes held, and those plus the need of the nodes that need most here.

        Each of several equal nodes must fit by itself, so their mean must: one row serves all layers. False: nothing new.
        """
        known = len(self.watched)
        for phase in (p.name for p in self.problem.phases):
            held, needs = self.footprint.held(rank, phase), self.footprint.needs(rank, phase)
            room = float(self.budgets[rank]) - self.footprint.least_need(rank, phase)
            self.watched.setdefault((rank, phase, 0), Watch(rank, phase, held, room))
            if needs:
                table = needs[max(needs, key=lambda i: needs[i][point.choice[i]])]
                alike = [i for i, need in needs.items() if need is table]
                row = Row({**held.unary, **dict.fromkeys(alike, table / len(alike))}, held.pairs)
                self.watched.setdefault((rank, phase, id(table)), Watch(rank, phase, row, float(self.budgets[rank])))
        return len(self.watched) > known

    # what cannot fit

    def _least_held(self, rank: int, phase: str) -> float:
        """Return a lower bound on the bytes that a rank holds under any choice."""
        if (rank, phase) not in self._held:
            row, memo = self.footprint.held(rank, phase), Memo()
            unary = [
                row.unary[i] if i in row.unary else memo.make("finite", (own,), partial(_finite, own))
                for i, own in enumerate(self.problem.unary)
            ]
            pairs = {
                k: row.pairs.get(k, memo.make("none", (t,), partial(np.zeros, t.shape)))
                for k, t in self.problem.pairs.items()
            }
            self._held[rank, phase] = Apart(unary, pairs, self.shape, WIDE).wishes(unary, pairs, memo)[1]
        return self._held[rank, phase]

    def _least_peak(self, rank: int, phase: str) -> float:
        """Return a lower bound on the peak bytes of a rank in a phase under any choice."""
        return self._least_held(rank, phase) + self.footprint.least_need(rank, phase)

    def _require_room(self) -> None:
        """Raise NoFitError if even the lower bound on the peak exceeds a budget."""
        for rank, phase, _ in self.watched:
            if self._least_peak(rank, phase) > self.budgets[rank] * (1 + ROUNDING):
                self._frugal()
                raise self._nothing(True)

    def _narrow(self) -> None:
        """Forbid assignments that exceed a budget even if the fewest possible bytes are held."""
        for rank, phase in dict.fromkeys((rank, phase) for rank, phase, _ in self.watched):
            most = float(self.budgets[rank]) - self._least_held(rank, phase)
            for i, need in self.footprint.needs(rank, phase).items():
                if (need > most).any():
                    self.unary[i] = np.where(need > most, np.inf, self.unary[i])

    def _nothing(self, proven: bool) -> NoFitError:
        """Return the error, with the choice that is closest to its budgets."""
        best = min(self.points.values(), key=lambda p: max(np.array(p.peaks) / self.budgets))
        rank = int((np.array(best.peaks) / self.budgets).argmax())
        return NoFitError(proven, best.needs, rank)

    # the bound

    def _priced(
        self, prices: Iterable[float], memo: Memo, cheap: Collection[int] = ()
    ) -> tuple[list[Table], dict[tuple[int, int], Table]]:
        """Return the problem in which every byte of a watched row has a price (`APART`: lower for the variables in `cheap`,
        higher for the others).
        """
        unary, pairs = list(self.unary), dict(self.problem.pairs)
        for watch, price in zip(self.watched.values(), prices, strict=False):
            if price:
                below, above = (float(price) * part for part in (APART if cheap else (1.0, 1.0)))
                for i, table in watch.row.unary.items():
                    unary[i] = memo.add(unary[i], memo.times(table, below if i in cheap else above))
                for (a, b), table in watch.row.pairs.items():
                    factor = below if a in cheap or b in cheap else above
                    pairs[a, b] = memo.add(pairs[a, b], memo.times(table, factor))
        return unary, pairs

    def _frugal(self, careful: bool = False) -> Point:
        """Return a choice that holds about as few bytes as possible; `careful`: and whose nodes need little memory."""
        scale = 1e4 * abs(self.bound) / max(max(max(p.peaks) for p in self.points.values()), 1.0)
        memo = Memo()
        unary, pairs = self._priced([scale] * len(self.watched), memo)
        for rank, phase, _ in self.watched if careful else ():
            for i, need in self.footprint.needs(rank, phase).items():
                unary[i] = memo.add(unary[i], memo.times(need, scale * 1e-2))
        wishes, _ = self.apart.wishes(unary, pairs, memo)
        found = [f for wish in wishes if (f := self.apart.improve(unary, pairs, memo, wish)) is not None]
        return self._meet(min(found, key=lambda f: f[1])[0])

    def _climb(self) -> None:
        """Raise the bound by steps of all multipliers, and judge the choices found on the way."""
        frugal = self._frugal()
        while self._watch(frugal):
            frugal = self._frugal()
        prices = self.prices = np.zeros(len(self.watched))
        cuts: list[tuple[int, ...]] = []
        for number in range(ROUNDS):
            memo = Memo()
            unary, pairs = self._priced(prices, memo)
            wishes, total = self.apart.wishes(unary, pairs, memo)
            rooms = np.array([watch.room for watch in self.watched.values()])
            prices = np.append(prices, np.zeros(len(rooms) - len(prices)))
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
            if now == self.bound:
                self.prices = prices
            rows = [watch.row for watch in self.watched.values()][: len(rooms)]
            if len(self.shape.blocks) == 1:
                cut = tuple(wishes[0][i] for i in range(len(self.unary)))
                if cut in cuts:
                    return
                cuts.append(cut)
                prices = self._highest(cuts, rows, rooms, frugal)
                continue
            slopes = self.apart.slopes(wishes)
            over = np.array([_mean(row, wishes) for row in rows]) - rooms
            units = np.array([_unit(row) for row in rows])
            over = np.where((over < 0) & (prices <= 0), 0.0, over)
            square = sum(float(row @ row) for slope in slopes for row in slope.values()) + float(
                ((over / units) ** 2).sum()
            )
            if square == 0.0:
                return
            length = shortened(number) * (aim - now) / square
            self.apart.move(slopes, length)
            prices = np.maximum(prices + length * over / units**2, 0.0)

    def _highest(self, cuts: Sequence[tuple[int, ...]], rows: Sequence[Row], rooms: Table, frugal: Point) -> Table:
        """Return the multipliers that maximise the bound given by the cutting planes of the choices found so far."""
        costs = [evaluate(self.unary, self.problem.pairs, choice) for choice in (*cuts, frugal.choice)]
        over = [[row.value(choice) for row in rows] - rooms for choice in (*cuts, frugal.choice)]
        slack = np.maximum(-over[-1], 1e-6 * rooms)
        return highest(np.array(costs), np.array(over), (costs[-1] - min(self.bound, costs[0])) / slack)

    # choices

    def _mix(self) -> None:
        """Mix the best choice that fits with faster ones that do not: some layers from the one, the rest from the other."""
        unary, pairs = self._priced(self.prices, Memo())
        for most in MIXED:
            best, known = self._best(), len(self.points)
            if best is None:
                return
            over = [p for p in self.points.values() if p.cost < best.cost and not self._fits(p)]
            over.sort(key=lambda p: evaluate(unary, pairs, p.choice))
            for point in over[:most]:
                prices, memo = self._secant(point, best), Memo()
                for shared in (self._layers, self._layers[::-1]):
                    self._bisect(point, best, shared, prices, memo)
            if self._best() is best and len(self.points) == known:
                return

    def _secant(self, over: Point, fits: Point) -> Table:
        """Return the multipliers at which two choices cost the same, in the proportions of those of the bound."""
        rows = [watch.row for watch in self.watched.values()]
        saved = np.array([row.value(over.choice) - row.value(fits.choice) for row in rows])
        prices = np.append(self.prices, np.zeros(len(rows) - len(self.prices)))
        if prices @ saved <= 0:
            prices = np.where(saved > 0, 1.0, 0.0)
        return prices * (fits.cost - over.cost) / max(float(prices @ saved), 1.0)

    def _bisect(self, over: Point, fits: Point, shared: Sequence[Sequence[int]], prices: Table, memo: Memo) -> None:
        """Find by bisection how many of the first layers can be as in `over`, and the rest as in `fits`, so that all fits.

        Bytes are cheap in those first layers and expensive in the rest, and phases are solved anew for each mixture. The
        number of layers is found to within a 64th of them.
        """
        low, high = 0, len(shared)
        while high - low > max(len(shared) // 64, 1) and time.perf_counter() < self.deadline:
            cut = (low + high) // 2
            cheap = {i for group in shared[:cut] for i in group}
            start = {i: (over if i in cheap else fits).choice[i] for i in self.shape.shared}
            try:
                met = self._meet(self.apart.given(*self._priced(prices, memo, cheap), memo, start))
            except InfeasibleError:  # a node reads parameters of both, and no assignment allows that
                high = cut
                continue
            if self._fits(met):
                low = cut
            else:
                high = cut

    def _exhaust(self) -> bool:
        """Solve a small problem by an integer program over all choices, until the solution fits.

        True: the best point is now proven to be optimal, or it is proven that nothing fits.
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


def _mean(row: Row, wishes: Sequence[Mapping[int, int]]) -> float:
    """Return the value of a row if each block has what it wishes; wishes about a shared variable are averaged."""
    total = 0.0
    for i, table in row.unary.items():
        having = [wish for wish in wishes if i in wish]
        total += sum(float(table[wish[i]]) for wish in having) / len(having)
    for (a, b), table in row.pairs.items():
        having = [wish for wish in wishes if a in wish and b in wish]
        total += sum(float(table[wish[a], wish[b]]) for wish in having) / len(having)
    return total


def _unit(row: Row) -> float:
    """Return the mean span of a row's tables, in bytes: the scale of a step of its multiplier."""
    spans = [float(np.ptp(table)) for table in row.unary.values() if len(table)]
    return max(float(np.mean(spans)) if spans else 1.0, 1.0)


def _finite(table: Table) -> Table:
    """Return 0 for a choice that is allowed, and inf for one that is forbidden."""
    return np.where(np.isfinite(table), 0.0, np.inf)
