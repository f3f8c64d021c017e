"""Weights of 16 bits give what the same numbers give in float32, under any legal plan, on simulated ranks."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from unitp.comparison.metrics import relative_error
from unitp.graph.graph import Graph
from unitp.graph.stored import rounded, stored, stored_in, widened
from unitp.graph.values import STORED
from unitp.mesh import Mesh
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.testing.operators import kit
from unitp.testing.random_graphs import random_graph
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import Simulated, simulate
from unitp.testing.unsharded import numbers

Array = npt.NDArray[Any]

MESHES = [Mesh(x=1), Mesh(x=2), Mesh(x=3), Mesh(x=2, y=2)]
ROUNDING = 1e-5


def run(graph: Graph, mesh: Mesh, seed: int, dtype: str, parameters: dict[str, Array]) -> Simulated:
    program = lower(graph, random_plan(graph, mesh, seed), "main", dtype=dtype)
    check(program, graph)
    inputs = {name: array for name, array in numbers(graph, seed).items() if name in graph.inputs}
    return simulate(program, inputs, parameters, overrides=kit("numpy").overrides)


@examples(80)
@given(st.integers(0, 100_000), st.sampled_from(MESHES), st.sampled_from(STORED))
def test_a_random_graph_gives_what_it_gives_for_the_rounded_weights(seed: int, mesh: Mesh, dtype: str) -> None:
    graph = random_graph(seed)
    narrow = stored(graph, dtype)
    assert stored_in(narrow) == (dtype,)
    kinds = {p.name: p.type.dtype for p in narrow.parameters}
    given_ = {name: numbers(graph, seed)[name].astype(np.float32) for name in kinds}
    bits: dict[str, Array] = {n: rounded(x, dtype) if kinds[n] == dtype else x for n, x in given_.items()}
    wide = {n: widened(x, dtype) if kinds[n] == dtype else x for n, x in bits.items()}
    found = run(narrow, mesh, seed, "float32", bits)
    wanted = run(graph, mesh, seed, "float32", wide)
    exact = run(narrow, mesh, seed, "float64", wide)
    for a, b, c in zip(found.outputs.values(), wanted.outputs.values(), exact.outputs.values(), strict=True):
        if a.dtype.kind == "f":
            assert a.dtype == np.float32
            assert relative_error(a, b) < ROUNDING
            assert relative_error(a, c) < ROUNDING
    assert found.spread < ROUNDING


@examples(30)
@given(st.integers(0, 100_000), st.sampled_from(MESHES))
def test_16_bits_take_half_the_bytes_and_change_nothing_else(seed: int, mesh: Mesh) -> None:
    graph = random_graph(seed)
    plan = random_plan(graph, mesh, seed)
    narrow = stored(graph, "bfloat16")
    one = lower(graph, plan, "main")
    other = lower(narrow, msgspec.structs.replace(plan, graph=narrow.hash), "main")
    assert one.instructions == other.instructions
    assert {n: (v.shape, v.layout) for n, v in one.values.items()} == {
        n: (v.shape, v.layout) for n, v in other.values.items()
    }
