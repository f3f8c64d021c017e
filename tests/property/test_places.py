"""A place that is none (an index, a position, a length out of range) is the same error however a graph is split.

Every operator that takes places, each under random legal plans of random meshes, ranks simulated in this process; the place
is an input of the graph, one that is moved about on its way, or computed. Sharded equals unsharded: the same values where
all places are legal, and else the same error, about the first place that is not.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.graph.ops import known_ops, operator
from unitp.mesh import Mesh
from unitp.plans import Phase, Plan, unsplit
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.session.indices import require_places
from unitp.testing.place_cases import TAKERS, WAYS, filled, graph_of, illegal
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import simulate
from unitp.testing.unsharded import numbers

MESHES = [Mesh(x=2), Mesh(x=3), Mesh(x=2, y=2)]


def outcome(graph: Graph, plan: Plan, arrays: dict[str, np.ndarray]) -> list[np.ndarray] | str:
    """Outputs and states, or the error, as a session has it: the driver checks, then ranks run."""
    try:
        require_places(graph, graph.outputs, {name: arrays[name] for name in graph.inputs}, {})
        program = lower(graph, plan, "main", dtype="float64")
        check(program, graph)
        found = simulate(program, arrays, arrays, arrays)
    except InputError as error:
        return str(error)
    assert found.spread == 0
    return [*found.outputs.values(), *found.states.values()]


def test_no_operator_that_takes_places_is_left_out() -> None:
    covered = {node.op for taker in TAKERS.values() for node in graph_of(taker, "input").nodes}
    assert {op for op in known_ops() if operator(op).places} <= covered


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TAKERS)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), mesh=st.sampled_from(MESHES), bad=st.integers(0, 3))
def test_sharded_is_as_unsharded(name: str, way: str, seed: int, mesh: Mesh, bad: int) -> None:
    taker, rng = TAKERS[name], np.random.default_rng(seed)
    graph = graph_of(taker, way)
    places = rng.integers(taker.low, taker.high + 1, taker.shape)
    if name.startswith("TensorScatter"):
        places = rng.permutation(taker.high + 1)[: taker.shape[0]]
    for _ in range(bad):
        places[tuple(rng.integers(taker.shape))] = rng.choice(illegal(taker))
    arrays = numbers(graph, seed) | {"at": filled(way, places)}
    whole = outcome(graph, unsplit(graph, [Phase("main", {})]), arrays)
    split = outcome(graph, random_plan(graph, mesh, seed), arrays)
    if bad:
        strange = np.argwhere((places < taker.low) | (places > taker.high))[0]
        who = "at" if way in ("input", "moved") else "the graph"
        assert isinstance(whole, str)
        assert f"{who} has {places[tuple(strange)]} at [" in whole
        assert f"legal are {taker.low} to {taker.high}" in whole
        assert whole == split
    else:
        assert not isinstance(whole, str)
        assert not isinstance(split, str)
        for a, b in zip(whole, split, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)
