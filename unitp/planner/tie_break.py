"""Find, among the choices that are about as fast as the fastest, the one that holds the fewest bytes.

    minimise   held    subject to   seconds <= (1 + TOLERANCE) * the least seconds

For a price b of a byte, min (seconds + b * held) is an ordinary planning problem. Its choice holds the fewest bytes of all choices
that are as fast. At b = slack / (held - the least possible) the choice is within the slack in any case. From somewhat above that
value, the price is raised until a choice is too slow. Then the price is set to what a byte costs between the two choices on either
side of the limit, until no new choice is found: these are the corners of the convex hull of seconds and bytes. If there are few
choices, an integer program also finds those inside the hull (`unitp.planner.solve.integer_programs`). Each b gives a bound that
holds for every choice within the tolerance:   held >= (min (seconds + b * held) - most seconds) / b.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil, inf, isfinite

import msgspec
import numpy as np

from unitp.planner.fastest import ROUNDING, Found, Search
from unitp.planner.problem.problem import Problem
from unitp.planner.solve.elimination import Table
from unitp.planner.solve.integer_programs import Program, Row, entries

TOLERANCE = 1e-3
"""A choice counts as equally fast if it is slower by at most this fraction."""

STEPS = 8
"""The most prices that are tried."""

STEEPER = 16.0
"""The factor by which the price is raised until a choice is too slow."""

CLOSE = 5e-3
"""Stop at this relative gap between the bytes held and their bound."""

SMALL = 500
"""The most columns of an integer program over all choices that is solved."""

TRIES = 20
"""The most solutions of the integer program that may turn out slower than its prices say."""


class Point(msgspec.Struct, frozen=True, order=True):
    """A choice with the bytes that it holds and its seconds."""

    held: float
    seconds: float
    choice: tuple[int, ...]


class Frugal:
    """Searches the choices that are as fast as `fastest` for the one that holds least. `deadline`: a time of `time.perf_counter`."""

    def __init__(self, problem: Problem, search: Search, fastest: Found, deadline: float = inf) -> None:
        self.problem, self.search, self.deadline = problem, search, deadline
        self.fastest = fastest
        self.most = fastest.value * (1 + TOLERANCE)
        self.best = self._point(fastest.choice)
        self.least = sum(float(own.min()) for own in problem.holding.unary.values())

    def found(self) -> Found:
        """Return the choice that holds least, with its value, and a lower bound on the bytes of every choice as fast."""
        if not self._done():
            self._corners()
        if not self._done(0.0) and entries(self.problem.unary, self.problem.pairs) <= SMALL:
            self._inside()
        return msgspec.structs.replace(
            self.fastest,
            choice=list(self.best.choice),
            value=self.best.seconds,
            fastest=self.fastest.value,
            least_held=min(self.least, self.best.held),
        )

    def _point(self, choice: Sequence[int]) -> Point:
        return Point(self.problem.held(choice), self.problem.value(choice), tuple(choice))

    def _done(self, close: float = CLOSE) -> bool:
        return self.best.held <= self.least * (1 + close)

    def _met(self, point: Point) -> bool:
        """Say whether a choice is fast enough, and keep the best of those."""
        if point.seconds > self.most * (1 + ROUNDING):
            return False
        self.best = min(self.best, point)
        return True

    def _bounded(self, total: float, price: float) -> None:
        """Raise the bound on bytes: at this price of a byte, every choice costs at least `total`."""
        self.least = max(self.least, ceil((total - self.most) / price * (1 - 1e-9)))

    def _corners(self) -> None:
        """Search the corners of the convex hull, by raising the price of a byte while the choice is fast enough."""
        quick, slow = self.best, None
        price = STEEPER * ((self.most - quick.seconds) or 1.0) / (quick.held - self.least)
        for _ in range(STEPS):
            priced = self.problem.holding.priced(self.problem.unary, self.problem.pairs, price)
            found = self.search.least(*priced, again=True)
            self._bounded(found.bound, price)
            point = self._point(found.choice)
            known = [(p.held, p.seconds) for p in (quick, slow) if p is not None]
            if self._met(point):
                quick = min(quick, point)
            elif slow is None or point.held > slow.held:
                slow = point
            if self._done() or time.perf_counter() > self.deadline:
                return
            if slow is None:
                price *= STEEPER
            elif (point.held, point.seconds) in known or quick.held <= slow.held:
                return
            else:
                price = (slow.seconds - quick.seconds) / (quick.held - slow.held)

    def _inside(self) -> None:
        """Search all choices by an integer program: bytes first (a byte outweighs all seconds of the slack), then seconds."""
        problem = self.problem
        price = 2 * ((self.most - self.fastest.value) or 1.0)
        unary, pairs = problem.holding.priced(problem.unary, problem.pairs, price)
        program = Program(unary, pairs)
        seconds = Row(dict(enumerate(map(_finite, problem.unary))), {k: _finite(t) for k, t in problem.pairs.items()})
        program.at_most(seconds, self.most)
        for _ in range(TRIES):
            outcome = program.solve(self.deadline - time.perf_counter())
            if isfinite(outcome.bound):
                self._bounded(outcome.bound, price)
            if outcome.choice is None or self._done(0.0):
                return
            if self._met(self._point(outcome.choice)) and self._done(0.0):
                return
            program.forbid(dict(enumerate(outcome.choice)))


def _finite(table: Table) -> Table:
    return np.where(np.isfinite(table), table, 0.0)
