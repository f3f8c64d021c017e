"""Find the fastest choice whose peak memory fits every rank: a Lagrangian gives the bound, mixed plans give the choice.

    bound    max over l >= 0 of  min over choices of  cost + sum_r l_r (held_r - budget_r + least need_r)
    value    the best choice that was lowered and fits: choices found at some l, and mixtures of them

Among the choices that fit and are as fast as the best of them (`unitp.planner.tie_break`), the one that holds fewest bytes is taken.

For given l, the inner minimum is an ordinary planning problem, decomposed by phases (`unitp.planner.solve.descent`). Only the few ranks
and phases whose budget binds have an l. Each step moves these multipliers and those that tie the phases together; if all phases are one
block, there are no others, and cutting planes move them. Choices on either side of a budget are mixed: bytes are cheap in some layers
and expensive in others, and bisection finds how many layers to take from which. A small problem is solved exactly over all choices
(`unitp.planner.solve.integer_programs`): a choice that turns out not to fit is forbidden, and the problem is solved again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from unitp.planner.fastest import ROUNDING, Found
from unitp.planner.judged import Judge, Judged, Point, proves
from unitp.planner.problem.blocks import layers
from unitp.planner.problem.problem import Problem
from unitp.planner.solve.descent import ROUNDS, TRIED, Apart, Shape, shortened
from unitp.planner.solve.elimination import Elimination, InfeasibleError, Table, TooWideError, evaluate
from unitp.planner.solve.identity_cache import Memo
from unitp.planner.solve.integer_programs import Program, Row, entries, highest
from unitp.planner.watched_rows import ONE_PHASE, Tables, Watched, mean, unit

ALL_PHASES = 2_000_000
"""The most entries of a table for eliminating all phases as one block."""

SMALL = 20_000
"""The most columns of an integer program over all choices that is solved."""

MIXED = (2, 1, 1, 1)
"""In each round, mix this many choices that do not fit with the best that does, while that finds new choices."""

CLOSE = 1e-4
"""Stop at this relative gap."""


class Limited:
    """A problem with a budget in bytes for each rank. `deadline`: a time of `time.perf_counter`."""

    def __init__(
        self, problem: Problem, shape: Shape, budgets: Sequence[float], judge: Judge, deadline: float = np.inf
    ) -> None:
        self.problem, self.deadline = problem, deadline
        self.phases = shape
        self.judged = Judged(problem, budgets, judge)
        self.bound = -np.inf
        self.prices: Table = np.zeros(0)
        self.unary: list[Table] = list(problem.unary)

    # made only if some budget binds

    @cached_property
    def watched(self) -> Watched:
        """The rows of bytes that have a multiplier."""
        return Watched(self.problem, self.shape)

    @cached_property
    def shape(self) -> Shape:
        """All phases as one block if the treewidth is low, else one block for each phase."""
        try:
            Elimination([len(u) for u in self.problem.unary], self.problem.pairs, ALL_PHASES)
        except TooWideError:
            return self.phases
        return Shape(self.phases.shared, [[i for block in self.phases.blocks for i in block]])

    @cached_property
    def apart(self) -> Apart:
        """The decomposition of the problem into `shape`."""
        return Apart(self.problem.unary, self.problem.pairs, self.shape, ONE_PHASE)

    @cached_property
    def _layers(self) -> list[list[int]]:
        return layers(self.problem)

    # the three questions

    def solve(self, free: Found, fastest: Found) -> Found:
        """Return the best choice that fits. Raises NoFitError if none was found.

        free, fastest   the best choices without limits: with the tie-break by bytes held, and without it
        """
        self.bound = free.bound
        first = self.judged.meet(free.choice)
        if self.judged.fits(first):
            return free
        self.judged.meet(fastest.choice)
        self._watch(first)
        self._require_room()
        self._narrow()
        self._climb()
        self._mix()
        found = self.judged.best()
        if found is None or not proves(self.bound, found):
            exact = self._exhaust()
            if (found := self.judged.best()) is None:
                raise self.judged.no_fit(exact)
            if exact:
                return self._chosen(found, found.cost, "mixed-integer program, exact")
        bound = found.cost if proves(self.bound, found) else self.bound
        return self._chosen(found, bound, "Lagrange bound, layers mixed")

    def smallest(self, free: Found) -> Point:
        """Return the choice, of those found, whose highest peak over all ranks is lowest."""
        self.bound = free.bound
        best = self.judged.meet(free.choice)
        while self._add(int(np.argmax(best.peaks)), best):
            best = min(best, self._frugal(careful=True), key=lambda p: max(p.peaks))
        return best

    def least(self, free: Found) -> Found:
        """Return the fastest choice found whose highest peak is as low as that of `smallest`. Raises NoFitError if that does not fit."""
        best = self.smallest(free)
        if not self.judged.fits(best):
            raise self.judged.no_fit(False)
        self.judged.budgets = np.minimum(self.judged.budgets, max(best.peaks))
        self._mix()
        fastest = self.judged.best() or best
        found = self.judged.lightest(fastest)
        peak = int(max(found.peaks))
        least = max(int(self.watched.least_peak(rank, phase)) for rank, phase in self.watched.places)
        how = "bytes priced above time, then layers mixed"
        return Found(list(found.choice), found.cost, self.bound, how, peak, min(least, peak), fastest.cost)

    def _chosen(self, fastest: Point, bound: float, solver: str) -> Found:
        found = self.judged.lightest(fastest)
        return Found(list(found.choice), found.cost, bound, solver, fastest=fastest.cost)

    def _watch(self, point: Point) -> bool:
        """Watch the rank that exceeds its budget most at this point. False: no rank does, or its rows are watched already."""
        over = np.array(point.peaks) - self.judged.budgets
        worst = int(over.argmax())
        return bool(over[worst] > 0) and self._add(worst, point)

    def _add(self, rank: int, point: Point) -> bool:
        return self.watched.add(rank, point, float(self.judged.budgets[rank]))

    # what cannot fit

    def _require_room(self) -> None:
        """Raise NoFitError if even the lower bound on the peak exceeds a budget."""
        for rank, phase in self.watched.places:
            if self.watched.least_peak(rank, phase) > self.judged.budgets[rank] * (1 + ROUNDING):
                self._frugal()
                raise self.judged.no_fit(True)

    def _narrow(self) -> None:
        """Forbid assignments that exceed a budget even if the fewest possible bytes are held."""
        for rank, phase in self.watched.places:
            most = float(self.judged.budgets[rank]) - self.watched.least_held(rank, phase)
            for i, need in self.watched.footprint.needs(rank, phase).items():
                if (need > most).any():
                    self.unary[i] = np.where(need > most, np.inf, self.unary[i])

    # the bound

    @property
    def _tables(self) -> Tables:
        return self.unary, self.problem.pairs

    def _frugal(self, careful: bool = False) -> Point:
        """Return a choice that holds about as few bytes as possible; `careful`: and whose nodes need little memory."""
        scale = 1e4 * abs(self.bound) / max(self.judged.highest_peak(), 1.0)
        memo = Memo()
        unary, pairs = self.watched.priced(self._tables, [scale] * len(self.watched), memo)
        if careful:
            unary = self.watched.needs_priced(unary, scale * 1e-2, memo)
        wishes, _ = self.apart.wishes(unary, pairs, memo)
        found = [f for wish in wishes if (f := self.apart.improve(unary, pairs, memo, wish)) is not None]
        return self.judged.meet(min(found, key=lambda f: f[1])[0])

    def _climb(self) -> None:
        """Raise the bound by steps of all multipliers, and judge the choices found on the way."""
        frugal = self._frugal()
        while self._watch(frugal):
            frugal = self._frugal()
        prices = self.prices = np.zeros(len(self.watched))
        cuts: list[tuple[int, ...]] = []
        for number in range(ROUNDS):
            memo = Memo()
            unary, pairs = self.watched.priced(self._tables, prices, memo)
            wishes, total = self.apart.wishes(unary, pairs, memo)
            rooms = self.watched.rooms
            prices = np.append(prices, np.zeros(len(rooms) - len(prices)))
            now = total - float(prices @ rooms)
            self.bound = max(self.bound, now)
            if number in TRIED:
                for wish in wishes:
                    if (found := self.apart.improve(unary, pairs, memo, wish)) is not None:
                        self._watch(self.judged.meet(found[0]))
            aim = self.judged.aim()
            if aim - self.bound <= CLOSE * abs(aim) or time.perf_counter() > self.deadline:
                return
            if now == self.bound:
                self.prices = prices
            rows = self.watched.rows[: len(rooms)]
            if len(self.shape.blocks) == 1:
                cut = tuple(wishes[0][i] for i in range(len(self.unary)))
                if cut in cuts:
                    return
                cuts.append(cut)
                prices = self._highest(cuts, rows, rooms, frugal)
                continue
            slopes = self.apart.slopes(wishes)
            over = np.array([mean(row, wishes) for row in rows]) - rooms
            units = np.array([unit(row) for row in rows])
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
        unary, pairs = self.watched.priced(self._tables, self.prices, Memo())
        for most in MIXED:
            best, known = self.judged.best(), len(self.judged)
            if best is None:
                return
            over = self.judged.too_large(best.cost)
            over.sort(key=lambda p: evaluate(unary, pairs, p.choice))
            for point in over[:most]:
                prices, memo = self._secant(point, best), Memo()
                for shared in (self._layers, self._layers[::-1]):
                    self._bisect(point, best, shared, prices, memo)
            if self.judged.best() is best and len(self.judged) == known:
                return

    def _secant(self, over: Point, fits: Point) -> Table:
        """Return the multipliers at which two choices cost the same, in the proportions of those of the bound."""
        rows = self.watched.rows
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
                met = self.judged.meet(
                    self.apart.given(*self.watched.priced(self._tables, prices, memo, cheap), memo, start)
                )
            except InfeasibleError:  # a node reads parameters of both, and no assignment allows that
                high = cut
                continue
            if self.judged.fits(met):
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
        for rank, budget in enumerate(self.judged.budgets):
            for phase in (p.name for p in self.problem.phases):
                row = self.watched.footprint.held(rank, phase)
                program.at_most(row, float(budget))
                for i, need in self.watched.footprint.needs(rank, phase).items():
                    program.at_most(Row({**row.unary, i: need}, row.pairs), float(budget))
        while time.perf_counter() < self.deadline:
            outcome = program.solve(self.deadline - time.perf_counter())
            best = self.judged.best()
            if outcome.choice is None or (best is not None and outcome.bound >= best.cost * (1 - ROUNDING)):
                return outcome.proven
            self.bound = max(self.bound, outcome.bound)
            if not outcome.proven:
                return False
            met = self.judged.meet(outcome.choice)
            if self.judged.fits(met) and met.cost <= outcome.bound * (1 + 1e-9):
                return True
            program.forbid(dict(enumerate(outcome.choice)))
        return False
