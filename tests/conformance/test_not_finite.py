"""Numbers that are none, on every backend: NaN is the largest of all for top-k, unsharded and split."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from unitp.engine.engine import Engine
from unitp.mesh import Mesh
from unitp.plans import Phase, unsplit
from unitp.plugins.discover import backends
from unitp.program.lower import lower
from unitp.testing.not_finite import PLANTS, arrays_of, graph_of
from unitp.testing.operators import engine, run_operator
from unitp.testing.operators import graph_of as operator_graph
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import first_not_finite, simulate

STRANGE = [np.nan, np.inf, -np.inf, 1.0, 2.0, 3.0, 0.0, -0.0]


@pytest.fixture(params=sorted(backends()))
def on(request: pytest.FixtureRequest) -> Engine:
    with warnings.catch_warnings(action="ignore"):  # of frameworks, while they are imported
        return engine(request.param)


def largest(x: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest: NaN first, then the numbers; of equal ones the lowest place first."""
    return np.lexsort((np.where(np.isnan(x), 0, -x), ~np.isnan(x)), -1)[..., :k]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_top_k_takes_nan_as_the_largest(on: Engine, k: int, dtype: str) -> None:
    for seed in range(8):
        x = np.random.default_rng(seed).choice(STRANGE, (7, 11)).astype(dtype)
        for axis, y in ((1, x), (0, x.T.copy())):
            values, ids = run_operator("TopK", {"k": k, "axis": axis}, [y], on, f"top {k} of {dtype} along {axis}")
            wanted = largest(x, k)
            np.testing.assert_array_equal(ids if axis else ids.T, wanted)
            np.testing.assert_array_equal(values if axis else values.T, np.take_along_axis(x, wanted, 1))


def test_arg_max_takes_nan_as_the_largest(on: Engine) -> None:
    x = np.random.default_rng(1).choice(STRANGE, (40, 11)).astype("float32")
    (found,) = run_operator("ArgMax", {"axis": 1, "keepdims": 0}, [x], on, "arg-max of anything")
    np.testing.assert_array_equal(found, largest(x, 1)[:, 0])


def prepared(on: Engine, name: str, key: str) -> dict[str, np.ndarray]:
    """Make the engine ready; returns the inputs."""
    graph, arrays = graph_of(name), arrays_of(name)
    for parameter in graph.parameters:
        on.load(parameter.name, arrays[parameter.name])
    for state in graph.states:
        on.allocate(0, state.input, state.type.sized({}), "float32")
    on.compile(key, lower(graph, unsplit(graph, [Phase("main", {})]), "main"))
    on.reset(0)
    return {name: arrays[name] for name in graph.inputs}


@pytest.mark.parametrize("name", PLANTS)
def test_the_first_operator_is_named(on: Engine, name: str) -> None:
    given = prepared(on, name, name)
    found = on.first_not_finite(name, given)
    assert found is not None
    assert found.operator == PLANTS[name].operator
    assert PLANTS[name].says in found.what
    assert f"= {found.operator}(" in found.text


def test_a_state_that_holds_nan_is_named(on: Engine) -> None:
    given = prepared(on, "", "state")
    with np.errstate(all="ignore"):
        on.run("state", given | {"x": np.repeat(np.array([[1], [np.nan]], "float32"), 6, 1)})
    found = on.first_not_finite("state", given)
    assert found is not None
    assert found.operator == "Add"
    assert 'it reads state "past", which has NaN at [1, 0]' in found.what


def test_a_mask_is_finite_enough_and_states_are_left_as_by_a_run(on: Engine) -> None:
    given = prepared(on, "", "finite")
    assert on.first_not_finite("finite", given) is None
    checked = on.run("finite", given)
    on.reset(0)
    on.run("finite", given)
    for output, array in on.run("finite", given).items():
        np.testing.assert_allclose(checked[output].astype(float), array.astype(float), rtol=1e-6)


@pytest.mark.parametrize("name", ["", *PLANTS])
def test_ranks_that_share_the_work_find_the_same(name: str) -> None:
    graph, arrays = graph_of(name), arrays_of(name)
    for seed in range(10):
        program = lower(graph, random_plan(graph, Mesh(x=2), seed), "main")
        found = first_not_finite(program, arrays)
        if not name:
            assert found is None
            continue
        plant = PLANTS[name]
        assert found is not None
        assert found.operator in (plant.operator, "Sub" if name == "a mask" else "")  # of a softmax in parts
        assert "reads" not in plant.says or f'"{plant.into}' in found.what


@pytest.mark.parametrize("seed", range(10))
def test_top_k_of_parts_takes_nan_as_the_largest(seed: int) -> None:
    x = np.random.default_rng(seed).choice(STRANGE, (3, 11)).astype("float32")
    graph = operator_graph("TopK", {"k": 5, "axis": 1}, [x])
    program = lower(graph, random_plan(graph, Mesh(x=3), seed), "main")
    values, ids = simulate(program, {"x0": x}, {}).outputs.values()
    np.testing.assert_array_equal(ids, largest(x, 5))
    np.testing.assert_array_equal(values, np.take_along_axis(x, largest(x, 5), 1))
