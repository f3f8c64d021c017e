"""The local primitives on NumPy arrays (or NumPy scalars, where a result has no dims)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.engine.widening import in_arrays
from unitp_numpy.erf import erf as _erf

Array = npt.NDArray[Any]


@lru_cache(maxsize=1024)
def _constant(value: float, dtype: str) -> Array:
    out = np.asarray(value, dtype=dtype)
    out.flags.writeable = False
    return out


# in, out, made of nothing


def from_numpy(array: Array) -> Array:
    return array


def to_numpy(x: Array) -> Array:
    return x


def full(shape: Sequence[int], value: float, dtype: str) -> Array:
    return np.full(shape, value, in_arrays(dtype)) if len(shape) else _constant(value, dtype)


def arange(start: int, stop: int, dtype: str) -> Array:
    return np.arange(start, stop, dtype=dtype)


def shape(x: Array) -> tuple[int, ...]:
    return x.shape


def dtype(x: Array) -> str:
    return x.dtype.name


def cast(x: Array, dtype: str) -> Array:
    return x.astype(dtype, copy=False)


# element by element, broadcasting

add = np.add
sub = np.subtract
mul = np.multiply
div = np.divide
pow = np.power
maximum = np.maximum
minimum = np.minimum
neg = np.negative
abs = np.absolute
exp = np.exp
log = np.log
sqrt = np.sqrt
tanh = np.tanh
erf = _erf
equal = np.equal
less = np.less
logical_and = np.logical_and
logical_not = np.logical_not
where = np.where


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)). exp of a large -x overflows to infinity, and the quotient is then 0, as it should be."""
    with np.errstate(over="ignore"):
        out = np.exp(np.negative(x))
    return np.asarray(1 / (1 + out), x.dtype)


# shape


def reshape(x: Array, shape: Sequence[int]) -> Array:
    return x.reshape(shape)


def transpose(x: Array, perm: Sequence[int]) -> Array:
    return x.transpose(perm)


def expand(x: Array, shape: Sequence[int]) -> Array:
    return np.broadcast_to(x, shape)


def concat(xs: Sequence[Array], dim: int) -> Array:
    return np.concatenate(xs, dim)


def slice(x: Array, dim: int, start: int, stop: int) -> Array:
    return x[(np.s_[:],) * dim + (np.s_[start:stop],)]


# contraction, reduction, selection

matmul = np.matmul


def reduce_sum(x: Array, dims: Sequence[int], keep: bool) -> Array:
    return np.asarray(np.add.reduce(x, tuple(dims), keepdims=keep, dtype=x.dtype))


def reduce_max(x: Array, dims: Sequence[int], keep: bool) -> Array:
    return np.asarray(np.maximum.reduce(x, tuple(dims), keepdims=keep))


def take(x: Array, ids: Array, dim: int) -> Array:
    return x.take(ids, dim)


def take_along(x: Array, ids: Array, dim: int) -> Array:
    return np.take_along_axis(x, ids, dim)


def topk(x: Array, k: int, dim: int) -> tuple[Array, Array]:
    if k == 1:
        ids = np.expand_dims(np.argmax(x, dim), dim)
    else:
        ids = np.moveaxis(_largest(np.moveaxis(x, dim, -1), k), -1, dim)
    return np.take_along_axis(x, ids, dim), ids


def _largest(x: Array, k: int) -> Array:
    """Return the places of the k largest along the last dim: all above the k-th value, then the first that equal it."""
    size = x.shape[-1]
    parted = np.partition(x, size - k, -1)
    if k == size or (x.dtype.kind == "f" and np.isnan(parted[..., size - k :]).any()):
        return _descending(x)[..., :k]
    edge = parted[..., size - k, None]
    above, level = x > edge, x == edge
    room = k - np.count_nonzero(above, -1)[..., None]
    kept = above | (level & (np.cumsum(level, -1) <= room))
    places = np.nonzero(kept)[-1].reshape(*x.shape[:-1], k)
    return np.take_along_axis(places, _descending(np.take_along_axis(x, places, -1)), -1)


def _descending(x: Array) -> Array:
    """Return the places in descending order of values, equal ones in order of place; NaN is larger than any number."""
    if x.dtype.kind == "f" and (nan := np.isnan(x)).any():
        return np.asarray(np.lexsort((np.negative(x), ~nan), -1))
    return np.argsort(np.negative(x) if x.dtype.kind == "f" else np.invert(x), -1, kind="stable")


# in place


def update(x: Array, rows: Array, starts: Array, dim: int) -> Array:
    size = rows.shape[dim]
    for entry, start in enumerate(starts.tolist()):
        x[(entry, *(np.s_[:],) * (dim - 1), np.s_[start : start + size])] = rows[entry]
    return x
