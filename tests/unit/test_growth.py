"""Planning and explaining take time in proportion to a model's layers: ratios of processor time, measured within a test.

How many seconds they take is measured by `make bench-overheads` and `make bench-planner`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from unitp.explain.alternatives import Alternatives
from unitp.frontends.llama import LlamaConfig
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.testing.models import tiny

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
    return tiny(LlamaConfig(layers, 256, 16, 4, 16, 512, 1024, 512))


@pytest.mark.parametrize("work", [planned, explained], ids=lambda work: work.__name__)
def test_time_grows_with_the_number_of_layers_and_not_with_its_square(
    work: Callable[[int], Callable[[], object]],
) -> None:
    few, many = work(FEW), work(MANY)
    few()  # what is cached from here on is so for both
    assert seconds(many) / min(seconds(few) for _ in range(2)) < MOST


def seconds(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def test_a_plan_states_how_long_it_took() -> None:
    graph = of(FEW).graph
    begun = time.perf_counter()
    made = plan(Request(graph, Mesh(tp=2)))
    assert 0 < made.certificate.elapsed_s <= time.perf_counter() - begun
