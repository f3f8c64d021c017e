"""The local primitives of every backend that can share this process mean what NumPy means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from unitp.engine.primitives import Primitives
from unitp.testing.operators import kit

KITS = ("numpy", "torch")
RNG = np.random.default_rng(3)
FLOATS = ("float32", "float64")
DTYPES = (*FLOATS, "int64", "int32", "bool")


@pytest.fixture(params=KITS)
def p(request: pytest.FixtureRequest) -> Primitives:
    return kit(request.param).primitives


def numbers(*shape, dtype="float64"):
    return np.asarray(RNG.normal(size=shape) * 3).astype(dtype)


def same(p, found, wanted):
    """Equal in shape, dtype and every element."""
    wanted = np.asarray(wanted)
    array = np.asarray(p.to_numpy(found))
    assert tuple(p.shape(found)) == wanted.shape == array.shape
    assert p.dtype(found) == wanted.dtype.name == array.dtype.name
    assert np.array_equal(array, wanted, equal_nan=wanted.dtype.kind == "f")


def near(p, found, wanted, units=4):
    """Within a few units in the last place of the largest element."""
    array, wanted = np.asarray(p.to_numpy(found)), np.asarray(wanted)
    assert array.shape == wanted.shape
    assert array.dtype == wanted.dtype
    assert np.all(np.abs(array - wanted) <= units * np.finfo(wanted.dtype).eps * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_go_in_and_out(p, dtype):
    x = numbers(3, 4, dtype=dtype)
    same(p, p.from_numpy(x), x)
    same(p, p.from_numpy(x[:, 1:3]), x[:, 1:3])
    same(p, p.from_numpy(x.T), x.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_made_of_nothing(p, dtype):
    same(p, p.full((2, 3), True if dtype == "bool" else 1, dtype), np.ones((2, 3), dtype))
    same(p, p.full((), 0, dtype), np.zeros((), dtype))
    if dtype != "bool":
        same(p, p.arange(2, 7, dtype), np.arange(2, 7, dtype=dtype))


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_truncate(p, dtype, to):
    x = np.array([-2.7, -1, 0, 0.5, 3.9]).astype(dtype)
    same(p, p.cast(p.from_numpy(x), to), x.astype(to))


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "maximum", "minimum"])
def test_arithmetic_broadcasts(p, name, dtype):
    x, y = numbers(3, 1, 5, dtype=dtype), numbers(4, 1, dtype=dtype)
    plain = {"sub": "subtract", "mul": "multiply"}.get(name, name)
    same(p, getattr(p, name)(p.from_numpy(x), p.from_numpy(y)), getattr(np, plain)(x, y))


@pytest.mark.parametrize("dtype", FLOATS)
def test_division_and_powers(p, dtype):
    x, y = np.abs(numbers(3, 5, dtype=dtype)) + 1, numbers(5, dtype=dtype)
    near(p, p.div(p.from_numpy(x), p.from_numpy(y)), x / y)
    near(p, p.pow(p.from_numpy(x), p.from_numpy(y)), x**y, units=8)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["neg", "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "erf"])
def test_functions_of_one(p, name, dtype):
    x = numbers(40, dtype="float64")
    x = np.abs(x) if name in ("log", "sqrt") else x
    x = x.astype(dtype).astype("float64")
    others: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "neg": np.negative,
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "erf": np.vectorize(math.erf),
    }
    exact = others.get(name) or getattr(np, name)
    near(p, getattr(p, name)(p.from_numpy(x.astype(dtype))), exact(x).astype(dtype))


def test_logic(p):
    x, y = numbers(3, 4, dtype="int64"), numbers(4, dtype="int64")
    a, b = p.from_numpy(x), p.from_numpy(y)
    same(p, p.equal(a, b), x == y)
    same(p, p.less(a, b), x < y)
    same(p, p.logical_and(p.less(a, b), p.equal(a, a)), x < y)
    same(p, p.logical_not(p.less(a, b)), x >= y)
    same(p, p.where(p.less(a, b), a, b), np.where(x < y, x, y))
    same(p, p.where(p.less(a, b), a, p.full((), 7, "int64")), np.where(x < y, x, 7))


def test_shape(p):
    x = numbers(2, 3, 4)
    a = p.from_numpy(x)
    same(p, p.reshape(a, (6, 4)), x.reshape(6, 4))
    same(p, p.reshape(p.transpose(a, (2, 0, 1)), (8, 3)), x.transpose(2, 0, 1).reshape(8, 3))
    same(p, p.transpose(a, (0, 2, 1)), x.swapaxes(1, 2))
    same(p, p.expand(p.slice(a, 1, 0, 1), (5, 2, 3, 4)), np.broadcast_to(x[:, :1], (5, 2, 3, 4)))
    same(p, p.concat([a, p.slice(a, 2, 1, 3)], 2), np.concatenate([x, x[:, :, 1:3]], 2))
    same(p, p.slice(a, 0, 1, 2), x[1:2])


@pytest.mark.parametrize("dtype", FLOATS)
def test_products(p, dtype):
    def product(left, right):
        x, y = (RNG.integers(-9, 9, shape).astype(dtype) for shape in (left, right))
        same(p, p.matmul(p.from_numpy(x), p.from_numpy(y)), x @ y)

    product((5, 7), (7, 3))
    product((2, 5, 7), (7, 3))
    product((2, 1, 5, 7), (3, 7, 2))
    product((1, 7), (7, 1))


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
def test_reductions(p, dtype):
    x = RNG.integers(-9, 9, (2, 3, 4)).astype(dtype)
    for dims in ((0,), (2,), (0, 2), (0, 1, 2)):
        for keep in (True, False):
            same(p, p.reduce_sum(p.from_numpy(x), dims, keep), x.sum(dims, keepdims=keep, dtype=dtype))
            same(p, p.reduce_max(p.from_numpy(x), dims, keep), x.max(dims, keepdims=keep))


@pytest.mark.parametrize("dtype", [*FLOATS, "int64", "bool"])
def test_look_ups(p, dtype):
    x, ids = numbers(5, 6, dtype=dtype), RNG.integers(0, 5, (2, 3))
    same(p, p.take(p.from_numpy(x), p.from_numpy(ids), 0), x.take(ids, 0))
    same(p, p.take(p.from_numpy(x), p.from_numpy(ids), 1), x.take(ids, 1))
    along = RNG.integers(0, 6, (5, 9))
    same(p, p.take_along(p.from_numpy(x), p.from_numpy(along), 1), np.take_along_axis(x, along, 1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_top_k_prefers_the_lowest_place(p, dtype, k, dim):
    x = RNG.integers(0, 4, (7, 8, 9)).astype(dtype)
    ids = np.argsort(-x, dim, kind="stable").take(range(k), dim)
    values, places = p.topk(p.from_numpy(x), k, dim)
    same(p, values, np.take_along_axis(x, ids, dim))
    same(p, places, ids)


def test_top_k_of_infinities(p):
    x = np.array([[-np.inf, 1, -np.inf, 2], [np.inf, np.inf, 0, 1]])
    values, places = p.topk(p.from_numpy(x), 3, 1)
    same(p, values, [[2.0, 1, -np.inf], [np.inf, np.inf, 1]])
    same(p, places, [[3, 1, 0], [0, 1, 3]])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [1, 2])
def test_update_writes_in_place_for_each_entry(p, dtype, dim):
    past, rows, starts = np.zeros((2, 6, 7, 3), dtype), numbers(2, 6, 7, 3, dtype=dtype), np.array([4, 1])
    rows = rows.take(range(2), dim)
    state = getattr(p, "state", p.full)(past.shape, 0, dtype)
    found = p.update(state, p.from_numpy(rows), p.from_numpy(starts), dim)
    for entry, start in enumerate(starts):
        np.moveaxis(past[entry], dim - 1, 0)[start : start + 2] = np.moveaxis(rows[entry], dim - 1, 0)
    same(p, found, past)
    same(p, state, past)


def test_numpy_top_k_of_the_lowest_integers():
    primitives = kit("numpy").primitives
    lowest = np.iinfo(np.int64).min
    assert primitives.topk(np.array([lowest, 5, lowest]), 3, 0)[1].tolist() == [1, 0, 2]
