"""A place that is none (an index, a position, a length out of range) is the same error however a graph is split.

Every operator that takes places, each under random legal plans of random meshes, ranks simulated in this process; the place
is an input of the graph, one that is moved about on its way, or computed. Sharded equals unsharded: the same values where
all places are legal, and else the same error, about the first place that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitp.errors import InputError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.ops import known_ops, operator
from unitp.mesh import Mesh
from unitp.plans import Phase, Plan, unsplit
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.runtime.indices import require_places
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import simulate
from unitp.testing.unsharded import numbers

MESHES = [Mesh(x=2), Mesh(x=3), Mesh(x=2, y=2)]


class Taker(NamedTuple):
    """An operator that takes places: a graph of it by its operand of places [`shape`], and which numbers are legal."""

    make: Callable[[Builder, str], Any]
    shape: tuple[int, ...]
    low: int
    high: int


def gather_nd(b: Builder, at: str) -> Any:
    return b.GatherND(b.input("x", "float32", (3, 5, 7)), b.Unsqueeze(at, axes=(2,)), batch_dims=1)


def scatter(b: Builder, at: str) -> Any:
    past = b.state("past", "float32", (3, 5, 7, 4))
    b.keep(past, present := b.TensorScatter(past, b.input("x", "float32", (3, 5, 2, 4)), at, axis=2))
    return b.Slice(present, axes=(2,), starts=(0,), ends=(5,))


def read_scatter(b: Builder, at: str) -> Any:
    """Not in place: the state is read by another operator too."""
    past = b.state("past", "float32", (3, 5, 7, 4))
    b.keep(past, present := b.TensorScatter(past, b.input("x", "float32", (3, 5, 2, 4)), at, axis=2))
    return b.Add(past, present)


def rotary(b: Builder, at: str) -> Any:
    tables = b.random("cos", (9, 3), seed=1), b.random("sin", (9, 3), seed=2)
    return b.RotaryEmbedding(b.input("x", "float32", (2, 5, 4, 6)), *tables, at)


def attention(b: Builder, at: str) -> Any:
    q, k = b.input("q", "float32", (2, 6, 4, 6)), b.input("k", "float32", (2, 3, 5, 6))
    return b.Attention(q, k, k, "", "", "", at, is_causal=1)


TAKERS = {
    "Gather": Taker(lambda b, at: b.Gather(b.random("t", (13, 7), seed=1), at, axis=0), (3, 5), -13, 12),
    "Gather, dim 1": Taker(lambda b, at: b.Gather(b.input("x", "float32", (5, 7, 3)), at, axis=1), (4,), -7, 6),
    "GatherND": Taker(gather_nd, (3, 2), -5, 4),
    "GatherElements": Taker(
        lambda b, at: b.GatherElements(b.input("x", "float32", (4, 7)), at, axis=1), (4, 9), -7, 6
    ),
    "TensorScatter": Taker(scatter, (3,), 0, 5),
    "TensorScatter, read": Taker(read_scatter, (3,), 0, 5),
    "RotaryEmbedding": Taker(rotary, (2, 4), 0, 8),
    "Attention": Taker(attention, (2,), 1, 5),
}


def moved(b: Builder, shape: tuple[int, ...]) -> str:
    """A place that is cut out of an input with strange numbers beside it, turned, joined and cast."""
    wide = b.input("at", "int64", (*shape[::-1], 3))
    at = b.Squeeze(b.Slice(wide, axes=(-1,), starts=(1,), ends=(2,)), axes=(len(shape),))
    at = b.Reshape(b.Transpose(at), shape=(1, *shape))
    return str(b.Squeeze(b.Concat(b.Identity(b.Cast(at, to="int32")), axis=0), axes=(0,)))


def chosen(b: Builder, shape: tuple[int, ...]) -> str:
    """Which elements of the input are used is known when it runs."""
    at = b.input("at", "int64", shape)
    return str(b.Where(b.Equal(at, at), at, b.Neg(at)))


WAYS: dict[str, Callable[[Builder, tuple[int, ...]], str]] = {
    "input": lambda b, shape: str(b.input("at", "int64", shape)),
    "moved": moved,
    "computed": lambda b, shape: str(b.Neg(b.input("at", "int64", shape))),
    "chosen": chosen,
}
"""How a place comes to the operator that takes it."""


def graph_of(taker: Taker, way: str) -> Graph:
    b = Builder("places")
    return b.graph(str(taker.make(b, WAYS[way](b, taker.shape))))


def filled(way: str, places: np.ndarray) -> np.ndarray:
    """The input `at` that leads to these places."""
    if way == "computed":
        return -places
    if way == "moved":
        return np.stack([np.full(places.T.shape, 10**6), places.T, np.full(places.T.shape, -(10**6))], -1)
    return places


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


def illegal(taker: Taker) -> list[int]:
    just, far = [taker.low - 1, taker.high + 1], [taker.low - 1000, 10**6, -(2**31) + 1]
    return [*just, *far, 2 * taker.low - 2, 2 * taker.high + 2]


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
