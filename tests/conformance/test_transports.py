"""Whatever carries them, collectives do the same: every type, uneven parts, groups of a mesh; and two runs give equal bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from carried import Way, collectives, given, ways
from places import CONTEXT, small_model, small_plan

from unitp.comparison.metrics import bound, relative_error
from unitp.comparison.oracle import Oracle, of_prompts
from unitp.program.instructions import AllGather, AllReduce, AllToAll, ReduceScatter
from unitp.session.launch import launch

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PROMPTS = [[7, 250, 3, 99, 41], [11, 8, 200, 1, 76]]


@ways()
def test_collectives_carry_every_type_and_reduce_in_one_order(way: Way) -> None:
    case = collectives(way.mesh)
    arrays = given(case.graph)
    with launch(case.graph, case.plan, way.backend, transport=way.transport) as session:
        first, second = session.run(arrays), session.run(arrays)
        (program,) = session.programs
    assert {type(i) for i in program.instructions} >= {AllGather, AllReduce, AllToAll, ReduceScatter}
    for name, (source, how) in case.outputs.items():
        x, found = arrays[source], first[name]
        assert found.dtype == x.dtype
        if how == "sum" and x.dtype.kind == "f":
            few = np.finfo(x.dtype).eps * len(x) * np.abs(x).sum(0, keepdims=True)
            assert (np.abs(found - x.astype(np.longdouble).sum(0, keepdims=True)) <= few).all(), name
        else:
            wanted = {"": x, "sum": x.sum(0, keepdims=True, dtype=x.dtype), "max": x.max(0, keepdims=True)}[how]
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert way.sums_in_order_of_arrival or found.tobytes() == second[name].tobytes(), name
    for name, whole in case.each.items():
        assert first[name].tobytes() == first[whole].tobytes(), f"ranks have other bits of {whole}"


@ways({Way("numpy", "native", "tp=3")}, meshes=["tp=3"], but=lambda way: way.sums_in_order_of_arrival)
def test_two_sessions_give_equal_bits(way: Way) -> None:
    case = collectives(way.mesh)
    arrays, found = given(case.graph), []
    for _ in range(2):
        with launch(case.graph, case.plan, way.backend, transport=way.transport) as session:
            found.append({name: x.tobytes() for name, x in session.run(arrays).items()})
    assert found[0] == found[1]


@lru_cache
def small_oracle() -> Oracle:
    return of_prompts(small_model(), PROMPTS, 8, CONTEXT)


def agrees(way: Way, dtype: str) -> None:
    """Logits within the bound, and all greedy tokens."""
    oracle, plan = small_oracle(), small_plan(way.mesh)
    with launch(small_model(), plan, way.backend, dtype=dtype, context=CONTEXT, transport=way.transport) as session:
        logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
        generation = session.generation(PROMPTS, 8)
        for _ in generation:
            pass
    assert relative_error(logits, oracle.outputs["logits"]) <= bound(dtype, oracle.errors["logits"])
    assert generation.tokens == oracle.tokens


@ways({Way(name, "mpi", "tp=2") for name in ("torch", "tensorflow", "mxnet")}, meshes=["tp=2", "dp=2,tp=2"])
def test_a_small_model_agrees(way: Way) -> None:
    agrees(way, "float32")


@ways({Way("mxnet", "mpi", "tp=2")}, meshes=["tp=2", "dp=2,tp=2"])
def test_a_small_model_agrees_in_float64(way: Way) -> None:
    agrees(way, "float64")
