"""Axes that a plan leaves unused because that is faster, and what using them would cost.

A phase leaves an axis unused where none of its operators is split over it: then every rank along it does the same work. The
other plan is the best one in which such phases split every product (`PRODUCTS`) over the axis that can be: planned anew,
with all else forbidden. A plan that split some trifle over it would not tell anybody what the axis is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unitp.errors import PlanError
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED, Variable
from unitp.planner.solve.elimination import Table
from unitp.plans import Plan, Unused

Mask = npt.NDArray[np.bool_]
PRODUCTS = ("matmul", "attention")
"""The kinds of operators that an axis is worth using for."""

Solve = Callable[[Sequence[Table]], tuple[Sequence[int], float]]
"""The best choice under these prices of single choices, and its value."""


def unused(problem: Problem, choice: Sequence[int], solve: Solve, *, partly: bool = False) -> tuple[Unused, ...]:
    """What a choice leaves unused, axis by axis; an axis that pins or the graph keep from being used is left out.

    `partly`: an axis is also told of where a phase splits some products over it, but not all that it could.
    """
    found = []
    for axis in problem.candidates.axes:
        able = _able(problem, axis)
        idle = [p.name for p in problem.phases if _idle(problem, choice, axis, p.name, able if partly else {})]
        forced = {number: mask for number, mask in able.items() if problem.variables[number].phase in idle}
        if not forced:
            continue
        try:
            other, value = solve(_without(problem.unary, forced))
        except PlanError:  # pins, or what each phase may do, leave no such plan
            continue
        found.append(Unused(axis, tuple(idle), value, problem.seconds(other)))
    return tuple(found)


def whole(plan: Plan, graph: Graph, axis: str, phase: str) -> tuple[list[str], int]:
    """The products that a phase does not split over an axis, and how many products there are."""
    products = [node.name for node in graph.nodes if operator(node.op).kind in PRODUCTS]
    splits = plan.phase(phase).nodes
    return [n for n in products if all(axis not in s.axes for s in splits.get(n, {}).values())], len(products)


def uses(variable: Variable, axis: str) -> list[bool]:
    """Which assignments of an operator split it over an axis."""
    return [any(axis in split.axes for _, split in assignment) for assignment in variable.assignments]


def _idle(problem: Problem, choice: Sequence[int], axis: str, phase: str, products: Mapping[int, Mask]) -> bool:
    """Whether a phase splits nothing over an axis; given products, whether it leaves any of them whole over it."""
    inside = [n for n, v in enumerate(problem.variables) if v.kind == "node" and v.phase == phase]
    if products:
        return any(not products[n][choice[n]] for n in inside if n in products)
    return not any(uses(problem.variables[n], axis)[choice[n]] for n in inside)


def _able(problem: Problem, axis: str) -> dict[int, Mask]:
    """The products (all operators, where none is a product) that may be split over an axis, and by which assignments."""
    ops = {node.name: node.op for node in problem.graph.nodes}
    inside = [n for n, v in enumerate(problem.variables) if v.kind == "node" and v.phase != SHARED]
    masks = {number: np.array(uses(problem.variables[number], axis)) for number in inside}
    able = {number: mask for number, mask in masks.items() if mask.any()}
    return {n: mask for n, mask in able.items() if operator(ops[problem.variables[n].name]).kind in PRODUCTS} or able


def _without(unary: Sequence[Table], allowed: Mapping[int, Mask]) -> list[Table]:
    """Prices that forbid what is not allowed. Equal tables stay one object: equal layers are solved once."""
    tables: dict[tuple[int, bytes], Table] = {}
    found = list(unary)
    for number, mask in allowed.items():
        key = (id(unary[number]), mask.tobytes())
        if key not in tables:
            tables[key] = np.where(mask, unary[number], np.inf)
        found[number] = tables[key]
    return found
