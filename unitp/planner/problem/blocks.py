"""How a planning problem decomposes, by phases and by layers, and its best choice under other unary prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unitp.planner.fastest import Search
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED
from unitp.planner.solve.descent import Shape
from unitp.planner.solve.elimination import Table

FEW = 500
"""Up to this many variables, also search for conversions that several readers can share, even if the treewidth grows."""


def shape_of(problem: Problem) -> Shape:
    """Return the blocks of a problem: the variables that all phases share, and those of each phase, which meet only there."""
    shared = [i for i, v in enumerate(problem.variables) if v.phase == SHARED]
    return Shape(shared, [[i for i, v in enumerate(problem.variables) if v.phase == p.name] for p in problem.phases])


def instead(problem: Problem) -> Callable[[Sequence[Table]], tuple[list[int], float]]:
    """Return a function from unary prices to the best choice under them, without memory limits, and its `problem.value`."""

    def best(unary: Sequence[Table]) -> tuple[list[int], float]:
        choice = Search(unary, problem.pairs, shape_of(problem), problem.memo).least(unary, problem.pairs).choice
        return choice, problem.value(choice)

    return best


def layers(problem: Problem) -> list[list[int]]:
    """Return the variables that phases share, in groups, in the order of their first readers.

    A group is a parameter with all that depends on it alone.
    """
    order = {node.name: at for at, node in enumerate(problem.graph.nodes)}
    head = {i: i for i, v in enumerate(problem.variables) if v.phase == SHARED}

    def of(i: int) -> int:
        while head[i] != i:
            i = head[i]
        return i

    for a, b in problem.pairs:
        if a in head and b in head:
            head[of(a)] = of(b)
    first: dict[int, int] = {}
    for a, b in problem.pairs:
        for i, j in ((a, b), (b, a)):
            if i in head and j not in head:
                at = order.get(problem.variables[j].name, len(order))
                first[of(i)] = min(first.get(of(i), len(order)), at)
    groups: dict[int, list[int]] = {}
    for i in head:
        groups.setdefault(of(i), []).append(i)
    return [groups[i] for i in sorted(groups, key=lambda i: first.get(i, len(order)))]
