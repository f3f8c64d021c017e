"""Numbers that are none, on every backend: NaN is the largest of all for top-k, unsharded and split."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from unitp.layout import Split
from unitp.mesh import Mesh
from unitp.plugins.discover import backends
from unitp.program.engine import Engine
from unitp.testing.operators import engine, run_operator

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
