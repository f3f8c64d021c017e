"""The choices that were judged by lowering them: what each costs, and which of them fit the budgets of the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from unitp.planner.fastest import ROUNDING
from unitp.planner.problem.problem import Problem
from unitp.planner.tie_break import TOLERANCE
from unitp.program.memory import Memory

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


class Judged:
    """All points of a problem so far. `budgets`: the bytes that each rank may need at most; they can be lowered later."""

    def __init__(self, problem: Problem, budgets: Sequence[float], judge: Judge) -> None:
        self.problem, self.judge = problem, judge
        self.budgets = np.array(budgets, float)
        self.points: dict[tuple[int, ...], Point] = {}

    def __len__(self) -> int:
        return len(self.points)

    def meet(self, choice: Sequence[int]) -> Point:
        """Return a choice with its cost and memory. It is judged once."""
        key = tuple(choice)
        if key not in self.points:
            value, held = self.problem.value(choice), self.problem.held(choice)
            self.points[key] = Point(key, value, held, tuple(self.judge(choice)))
        return self.points[key]

    def fits(self, point: Point) -> bool:
        """Say whether every rank stays within its budget."""
        return bool((np.array(point.peaks) <= self.budgets).all())

    def best(self) -> Point | None:
        """Return the fastest point that fits, or None."""
        return min((p for p in self.points.values() if self.fits(p)), key=lambda p: p.cost, default=None)

    def aim(self) -> float:
        """Return the seconds of the fastest point that fits, or while there is none, those of the slowest point."""
        best = self.best()
        return best.cost if best is not None else max(p.cost for p in self.points.values())

    def too_large(self, most_s: float) -> list[Point]:
        """Return the points that take less than `most_s` seconds and do not fit."""
        return [p for p in self.points.values() if p.cost < most_s and not self.fits(p)]

    def lightest(self, fastest: Point) -> Point:
        """Return the point that holds the fewest bytes among those that fit and are as fast (`tie_break.TOLERANCE`)."""
        near = (p for p in self.points.values() if self.fits(p) and p.cost <= fastest.cost * (1 + TOLERANCE))
        return min(near, key=lambda p: (p.held, p.cost), default=fastest)

    def highest_peak(self) -> float:
        """Return the highest peak of any rank at any point, in bytes."""
        return max(max(p.peaks) for p in self.points.values())

    def no_fit(self, proven: bool) -> NoFitError:
        """Return the error that nothing fits, with the point that is closest to the budgets."""
        closest = min(self.points.values(), key=lambda p: max(np.array(p.peaks) / self.budgets))
        return NoFitError(proven, closest.needs, int((np.array(closest.peaks) / self.budgets).argmax()))


def proves(bound: float, point: Point) -> bool:
    """Say whether a lower bound shows that no choice is faster than this point."""
    return point.cost - bound <= ROUNDING * abs(point.cost)
