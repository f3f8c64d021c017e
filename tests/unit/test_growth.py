"""Planning and explaining take work in proportion to a model's layers: ratios of calls, which no load changes.

How many seconds they take is measured by `make bench-overheads` and `make bench-planner`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from calls import calls

from unitp.explain.alternatives import Alternatives
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.testing.models import WIDE, tiny

FEW, MANY, MOST = 6, 24, 9.0
"""Four times as many layers: linear is 4, the square 16."""


def planned(layers: int) -> Callable[[], object]:
    graph = of(layers).graph
    return lambda: plan(Request(graph, Mesh(tp=2)))


def explained(layers: int) -> Callable[[], object]:
    graph = of(layers).graph
    made = plan(Request(graph, Mesh(tp=2)))

    def run() -> object:
        alternatives = Alternatives(made, graph)
        return alternatives.expensive(), alternatives.contested()

    return run


def of(layers: int) -> Model:
    return tiny(WIDE, layers=layers)


@pytest.mark.parametrize("work", [planned, explained], ids=lambda work: work.__name__)
def test_work_grows_with_the_number_of_layers_and_not_with_its_square(
    work: Callable[[int], Callable[[], object]],
) -> None:
    few, many = work(FEW), work(MANY)
    few()  # what is cached from here on is so for both
    assert calls(many) / calls(few) < MOST


def test_a_plan_states_how_long_it_took() -> None:
    assert plan(Request(of(FEW).graph, Mesh(tp=2))).certificate.elapsed_s > 0
