"""Axes that a plan leaves unused because that is faster, and what using them would cost.

A phase leaves an axis unused if none of its operators is split over it: then every rank along it does the same work. The
plan to compare with is the best one in which such phases split over the axis every product (`PRODUCTS`) that can be split over
it. A plan that split only some small operator would not show what the axis is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unitp.certificate import Unused
from unitp.errors import PlanError
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED, Variable
from unitp.planner.solve.elimination import Table
from unitp.plans import Plan

Mask = npt.NDArray[np.bool_]
PRODUCTS = ("matmul", "attention")
"""The kinds of operators that do most of the work."""

Solve = Callable[[Sequence[Table]], tuple[Sequence[int], float]]
"""A function from unary prices to the best choice and its value; raises PlanError if every choice is forbidden."""


def unused(problem: Problem, choice: Sequence[int], solve: Solve, *, partly: bool = False) -> tuple[Unused, ...]:
    """Return the axes that a choice leaves unused, without those that pins or the graph keep from being used.

    partly   also return an axis over which a phase splits some products, but not all that it could
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
    """Return the names of the products that a phase does not split over an axis, and the number of all products."""
    products = [node.name for node in graph.nodes if operator(node.op).kind in PRODUCTS]
    splits = plan.phase(phase).nodes
    return [n for n in products if all(axis not in s.axes for s in splits.get(n, {}).values())], len(products)


def uses(variable: Variable, axis: str) -> list[bool]:
    """Say for each assignment of a node whether it splits the node over an axis."""
    return [any(axis in split.axes for _, split in assignment) for assignment in variable.assignments]


def _idle(problem: Problem, choice: Sequence[int], axis: str, phase: str, products: Mapping[int, Mask]) -> bool:
    """Say whether a phase splits nothing over an axis; if products are given, whether any of them is not split over it."""
    inside = [n for n, v in enumerate(problem.variables) if v.kind == "node" and v.phase == phase]
    if products:
        return any(not products[n][choice[n]] for n in inside if n in products)
    return not any(uses(problem.variables[n], axis)[choice[n]] for n in inside)


def _able(problem: Problem, axis: str) -> dict[int, Mask]:
    """Return the assignments that split over an axis, for each product that has one (for each node, if no product has one)."""
    ops = {node.name: node.op for node in problem.graph.nodes}
    inside = [n for n, v in enumerate(problem.variables) if v.kind == "node" and v.phase != SHARED]
    masks = {number: np.array(uses(problem.variables[number], axis)) for number in inside}
    able = {number: mask for number, mask in masks.items() if mask.any()}
    return {n: mask for n, mask in able.items() if operator(ops[problem.variables[n].name]).kind in PRODUCTS} or able


def _without(unary: Sequence[Table], allowed: Mapping[int, Mask]) -> list[Table]:
    """Return prices that forbid what is not allowed. Equal tables stay one object, so that equal layers are solved once."""
    tables: dict[tuple[int, bytes], Table] = {}
    found = list(unary)
    for number, mask in allowed.items():
        key = (id(unary[number]), mask.tobytes())
        if key not in tables:
            tables[key] = np.where(mask, unary[number], np.inf)
        found[number] = tables[key]
    return found
