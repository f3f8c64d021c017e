"""A planning problem is a value: passes return another one, and leave the one they are given as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unitp.mesh import Mesh
from unitp.planner import default_phases
from unitp.planner.choices.candidates import Candidates
from unitp.planner.prices.work import Prices
from unitp.planner.problem.one_layout import one_layout
from unitp.planner.problem.pins import apply
from unitp.planner.problem.problem import Problem, posed
from unitp.testing.models import EAGER_TO_SPLIT, tiny

PIN = "blk.*.ffn_down.weight: S(1)@tp"
PASSES: dict[str, Callable[[Problem], Problem]] = {
    "pins": lambda problem: apply(problem, [PIN]),
    "relaxed": Problem.relaxed,
    "one layout": one_layout,
}


def made() -> Problem:
    graph, mesh = tiny().graph, Mesh(tp=2)
    candidates = Candidates(graph, mesh, machines=[EAGER_TO_SPLIT])
    return posed(graph, mesh, default_phases(graph, mesh), candidates, Prices(EAGER_TO_SPLIT, mesh))


def tables(problem: Problem) -> dict[object, np.ndarray]:
    """Every table of a problem, by its kind and place."""
    singles, both = dict(enumerate(problem.unary)), problem.holding
    kinds: dict[str, Any] = {"unary": singles, "pairs": problem.pairs, "held": both.unary, "held by two": both.pairs}
    return {(kind, at): table for kind, found in kinds.items() for at, table in found.items()}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_leaves_the_problem_that_it_is_given_as_it_was(name: str) -> None:
    problem = made()
    before = tables(problem)
    copies = {at: table.copy() for at, table in before.items()}
    after = tables(PASSES[name](problem))
    assert tables(problem).keys() == before.keys()
    for at, table in tables(problem).items():
        assert table is before[at]
        assert np.array_equal(table, copies[at])
    changed = [at for at, table in after.items() if table is not before.get(at)]
    assert changed, "the pass did nothing"
    assert len(changed) < len(before), "tables that a pass does not change are shared"


def test_the_tables_of_a_problem_cannot_be_written_to() -> None:
    problem = made()
    for table in tables(problem).values():
        with pytest.raises(ValueError, match="read-only"):
            table[...] = 0.0
    with pytest.raises(AttributeError, match="cannot assign"):
        problem.pairs = {}  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        problem.pairs[0, 1] = np.zeros((1, 1))  # type: ignore[index]


def test_a_choice_is_worth_the_same_after_passes_that_bound_prices() -> None:
    problem = made()
    pinned = apply(problem, [PIN])
    bounded = one_layout(pinned.relaxed())
    rng = np.random.default_rng(3)
    for _ in range(20):
        choice = [int(rng.choice(np.flatnonzero(np.isfinite(own)))) for own in pinned.unary]
        assert bounded.value(choice) == pinned.value(choice) == problem.value(choice)
        assert bounded.held(choice) == problem.held(choice)
        assert bounded.seconds(choice) == problem.seconds(choice)
