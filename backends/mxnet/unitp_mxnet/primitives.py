"""The local primitives on MXNet's arrays, or on promises of them (`unitp_mxnet.operators`).

Constants without dims stay NumPy scalars, so that they become attributes (in double precision) and not arrays. MXNet has few
kernels for bools, so they are moved as bytes. `Activation` and `Concat` are the fastest operators of their kind. MXNet's `topk`
does not order equal values, so `topk` is done on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from unitp_mxnet.operators import Later, NumpyArray, Tensor, array, assign, call, host

LARGEST_SCALAR = 1e300
"""The largest number that an attribute carries; larger ones (and infinities) are given as arrays."""


@lru_cache(maxsize=1024)
def _constant(value: float, dtype: str) -> NumpyArray:
    out = np.asarray(value, dtype=dtype)
    out.flags.writeable = False
    return out


# in, out, made of nothing


def from_numpy(array_: NumpyArray) -> Tensor:
    return array(array_)


def to_numpy(x: Tensor) -> NumpyArray:
    return x if isinstance(x, np.ndarray) else x.asnumpy()


def full(shape: Sequence[int], value: float, dtype: str) -> Tensor:
    return array(np.full(shape, value, dtype)) if len(shape) else _constant(value, dtype)


def arange(start: int, stop: int, dtype: str) -> Tensor:
    return array(np.arange(start, stop, dtype=dtype))


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def dtype(x: Tensor) -> str:
    return x.dtype if isinstance(x, Later) else np.dtype(x.dtype).name


def cast(x: Tensor, dtype_: str) -> Tensor:
    if isinstance(x, np.ndarray):
        return _constant(x.item(), dtype_)
    return x if dtype(x) == dtype_ else call("Cast", x, dtype=dtype_)


# element by element, broadcasting


def _binary(op: str, right: str, left: str, fn: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of two operands.

    It calls operator `op` for arrays, `right` or `left` for a constant on that side, and `fn` for two constants.
    """

    def binary(x: Tensor, y: Tensor) -> Tensor:
        if isinstance(y, np.ndarray):
            if isinstance(x, np.ndarray):
                return np.asarray(fn(x, y))
            if _plain(y):
                return call(right, x, scalar=y.item())
        elif isinstance(x, np.ndarray) and _plain(x):
            return call(left, y, scalar=x.item())
        return call(op, x, y)

    return binary


def _plain(x: NumpyArray) -> bool:
    """Say whether an attribute gives this constant exactly."""
    return x.dtype != bool and bool(np.abs(x) <= (LARGEST_SCALAR if x.dtype.kind == "f" else 2**53))


def _unary(op: str, fn: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    def unary(x: Tensor) -> Tensor:
        return np.asarray(fn(x)) if isinstance(x, np.ndarray) else call(op, x)

    return unary


def _on_array(op: str) -> Callable[[Tensor], Tensor]:
    return lambda x: call(op, x)


add = _binary("broadcast_add", "_plus_scalar", "_plus_scalar", np.add)
sub = _binary("broadcast_sub", "_minus_scalar", "_rminus_scalar", np.subtract)
mul = _binary("broadcast_mul", "_mul_scalar", "_mul_scalar", np.multiply)
div = _binary("broadcast_div", "_div_scalar", "_rdiv_scalar", np.divide)
pow = _binary("broadcast_power", "_power_scalar", "_rpower_scalar", np.power)
maximum = _binary("broadcast_maximum", "_maximum_scalar", "_maximum_scalar", np.maximum)
minimum = _binary("broadcast_minimum", "_minimum_scalar", "_minimum_scalar", np.minimum)
equal = _binary("_npi_equal", "_npi_equal_scalar", "_npi_equal_scalar", np.equal)
less = _binary("_npi_less", "_npi_less_scalar", "_npi_greater_scalar", np.less)
neg = _unary("negative", np.negative)
abs = _unary("abs", np.absolute)
exp = _unary("exp", np.exp)
log = _unary("log", np.log)
sqrt = _unary("sqrt", np.sqrt)
erf = _on_array("erf")
logical_not = _on_array("_npi_logical_not")


def tanh(x: Tensor) -> Tensor:
    return call("Activation", x, act_type="tanh")


def sigmoid(x: Tensor) -> Tensor:
    return call("Activation", x, act_type="sigmoid")


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return call("_npi_multiply", x, y)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return call("_npi_where", condition, x, y)


# shape


def _as_bytes(move: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `move` for bools as well."""

    def moved(x: Tensor, *args: Any) -> Tensor:
        if dtype(x) != "bool":
            return move(x, *args)
        return call("Cast", move(call("Cast", x, dtype="uint8"), *args), dtype="bool")

    return moved


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return call("_np_reshape", x, newshape=tuple(shape))


@_as_bytes
def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    """Transpose. If only dims of size 1 change places (the heads of a decode step), that is a reshape."""
    moved = [dim for dim in perm if x.shape[dim] > 1]
    if moved == sorted(moved):
        return reshape(x, [x.shape[dim] for dim in perm])
    return call("transpose", x, axes=tuple(perm))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return call("_npi_broadcast_to", x, shape=tuple(shape))


def concat(xs: Sequence[Tensor], dim: int) -> Tensor:
    op, name = ("_npi_concatenate", "axis") if dtype(xs[0]) == "bool" else ("Concat", "dim")
    return call(op, *xs, num_args=len(xs), **{name: dim})


@_as_bytes
def slice(x: Tensor, dim: int, start: int, stop: int) -> Tensor:
    return call("slice_axis", x, axis=dim, begin=start, end=stop)


# contraction, reduction, selection


class Rows(NamedTuple):
    """A parameter [n, k] that stands for its transpose as a right operand."""

    weight: Tensor


def matmul(x: Tensor, y: Tensor | Rows) -> Tensor:
    """Multiply [..., m, k] by [..., k, n].

    MXNet can multiply matrices over equal batch dims, and rows by a stored transpose; other operands are brought to these forms.
    """
    if isinstance(y, Rows):
        return linear(x, y.weight)
    if dtype(x).startswith("int"):
        return cast(matmul(cast(x, "float64"), cast(y, "float64")), dtype(x))
    if len(y.shape) == 2:
        rows = x if len(x.shape) == 2 else reshape(x, (-1, x.shape[-1]))
        out = call("_linalg_gemm2", rows, y)
        return out if rows is x else reshape(out, (*x.shape[:-1], y.shape[1]))
    if x.shape[:-2] != y.shape[:-2]:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        x, y = expand(x, (*batch, *x.shape[-2:])), expand(y, (*batch, *y.shape[-2:]))
    return call("_linalg_gemm2", x, y)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x times the transpose of `weight` [n, k], by the product of MXNet that is fast for few rows."""
    return call("FullyConnected", x, weight, no_bias=True, num_hidden=weight.shape[0], flatten=False)


def reduce_sum(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    out = call("_np_sum", x, axis=tuple(dims), keepdims=keep)
    return cast(out, dtype(x))


def reduce_max(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    return call("_np_max", x, axis=tuple(dims), keepdims=keep)


def take(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    return call("take", x, ids, axis=dim, mode="clip")


def take_along(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    """Take elements by their places in the flattened array: `ids` steps along `dim` from the first entry."""
    step = int(np.prod(x.shape[dim + 1 :]))
    first = np.ix_(*(range(1 if i == dim else n) for i, n in enumerate(x.shape)))
    places = np.asarray(np.ravel_multi_index(first, x.shape), "int64")
    flat = add(mul(cast(ids, "int64"), _constant(step, "int64")), array(places))
    return take(reshape(x, (-1,)), flat, 0)


def topk(x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    if k == 1:
        ids = call("_npi_argmax", x, axis=dim, keepdims=True)
        return call("pick", x, ids, axis=dim, keepdims=True), ids
    size = tuple(k if i == dim else n for i, n in enumerate(x.shape))
    ids = host(lambda x: array(_largest(x.asnumpy(), k, dim)), x, type=(size, "int64"))
    return take_along(x, ids, dim), ids


def _largest(x: NumpyArray, k: int, dim: int) -> NumpyArray:
    """Return the places of the k largest along `dim`: NaN first, then values in descending order, equal ones in order of place."""
    rows = np.moveaxis(x, dim, -1)
    out = np.empty((*rows.shape[:-1], k), "int64")
    for at in np.ndindex(rows.shape[:-1]):
        row = -rows[at]
        first = np.flatnonzero(np.isnan(row))[:k]
        if more := k - len(first):
            reaching = np.flatnonzero(row <= np.partition(row, more - 1)[more - 1])
            first = np.append(first, reaching[np.argsort(row[reaching], kind="stable")[:more]])
        out[at] = first
    return np.moveaxis(out, -1, dim)


# in place


def update(x: Tensor, rows: Tensor, starts: Tensor, dim: int) -> Tensor:
    return host(lambda x, rows, starts: _write(x, rows, starts, dim), x, rows, starts, type=(x.shape, dtype(x)))


def _write(x: Tensor, rows: Tensor, starts: Tensor, dim: int) -> Tensor:
    begin, end = [0] * len(x.shape), list(x.shape)
    for entry, start in enumerate(starts.asnumpy().tolist()):
        begin[0], end[0] = entry, entry + 1
        begin[dim], end[dim] = start, start + rows.shape[dim]
        assign(x, rows if len(rows) == 1 else rows[entry : entry + 1], begin, end)
    return x
