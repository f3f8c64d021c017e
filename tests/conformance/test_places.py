"""A computed place that is none is the same refusal on every backend, and the caches are as they were."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from unitp.engine.engine import Engine
from unitp.errors import InputError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.plans import Phase, unsplit
from unitp.plugins.discover import backends
from unitp.program.lower import lower
from unitp.testing.operators import engine
from unitp.testing.place_cases import TAKERS, filled, graph_of
from unitp.testing.unsharded import numbers


@pytest.fixture(params=sorted(backends()))
def on(request: pytest.FixtureRequest) -> Engine:
    with warnings.catch_warnings(action="ignore"):  # of frameworks, while they are imported
        return engine(request.param)


@contextmanager
def prepared(on: Engine, name: str, graph: Graph, arrays: dict[str, np.ndarray]) -> Iterator[None]:
    """The graph's program under this name, and its states in bank 0 until the end: the engine is that of other tests, too."""
    program = lower(graph, unsplit(graph, [Phase("main", {})]), "main", dtype="float64")
    for parameter in graph.parameters:
        on.load(parameter.name, arrays[parameter.name])
    for state in graph.states:
        on.allocate(0, state.input, state.type.sized({}), "float64")
    on.compile(name, program)
    try:
        yield
    finally:
        if graph.states:
            on.free(0)


@pytest.mark.parametrize("name", TAKERS)
def test_the_refusal_names_operator_number_and_range(name: str, on: Engine) -> None:
    taker = TAKERS[name]
    graph = graph_of(taker, "computed")
    right = np.resize(np.arange(taker.low, taker.high + 1), taker.shape)
    arrays = numbers(graph, 3)

    def run(places: np.ndarray) -> dict[str, np.ndarray]:
        given = arrays | {"at": filled("computed", places)}
        return on.run(f"places of {name}", {name: given[name] for name in graph.inputs})

    with prepared(on, f"places of {name}", graph, arrays):
        first = run(right)
        node = next(n for n in graph.nodes if n.op == name.partition(",")[0])
        for wrong in (taker.low - 1, taker.high + 1, 10**6, -(10**6)):
            places = right.copy()
            at = tuple(n - 1 for n in places.shape)
            places[at] = wrong
            with pytest.raises(InputError) as raised:
                run(places)
            said, legal = str(raised.value), f"legal are {taker.low} to {taker.high}"
            assert said.startswith(f"the graph has {wrong} at [{', '.join(map(str, at))}")
            assert said.endswith(f'of {node.op} "{node.name}" {legal}')
        if graph.states:
            on.reset(0)
        for output, array in run(right).items():
            np.testing.assert_array_equal(array, first[output])


def test_a_cache_keeps_its_rows(on: Engine) -> None:
    """An entry whose place is none keeps what it has; the others are written where they belong."""
    b = Builder("cache")
    past = b.state("past", "float32", (2, 1, 6, 2))
    at = b.Neg(b.input("at", "int64", (2,)))
    b.keep(past, present := b.TensorScatter(past, b.input("x", "float32", (2, 1, 2, 2)), at, axis=2))
    graph = b.graph(str(b.Slice(present, axes=(2,), starts=(0,), ends=(5,))))

    def run(x: int, *at: int) -> np.ndarray:
        given = {"x": np.full((2, 1, 2, 2), float(x)), "at": -np.array(at)}
        return on.run("cache of places", given)[graph.outputs[0]][:, 0, :, 0]

    with prepared(on, "cache of places", graph, {}):
        run(1, 0, 0)
        run(2, 2, 2)
        with pytest.raises(InputError, match="the graph has 5 at \\[1\\]"):
            run(3, 0, 5)
        wanted = [[3, 3, 4, 4, 0], [1, 1, 4, 4, 0]]
        np.testing.assert_array_equal(run(4, 2, 2), wanted)
