"""How a planning problem falls apart by phases, and its best choice under other prices of single choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unitp.planner.descent import Shape
from unitp.planner.elimination import Table
from unitp.planner.problem import SHARED, Problem
from unitp.planner.search import search


def shape_of(problem: Problem) -> Shape:
    """Phases meet only in what all of them share."""
    shared = [i for i, v in enumerate(problem.variables) if v.phase == SHARED]
    return Shape(shared, [[i for i, v in enumerate(problem.variables) if v.phase == p.name] for p in problem.phases])


def instead(problem: Problem) -> Callable[[Sequence[Table]], tuple[list[int], float]]:
    """The best choice under other prices of single choices, whatever it needs, and what it costs."""

    def best(unary: Sequence[Table]) -> tuple[list[int], float]:
        choice = search(unary, problem.pairs, shape_of(problem), problem.memo).choice
        return choice, problem.value(choice)

    return best
