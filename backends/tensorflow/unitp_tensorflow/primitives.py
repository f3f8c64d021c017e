"""The local primitives on TensorFlow tensors, eagerly and while a tf.function is traced. States are variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Tensor = Any


# in, out, made of nothing


def from_numpy(array: npt.NDArray[Any]) -> Tensor:
    """Return a tensor. TensorFlow releases the array only when the next operator runs, which is the identity here."""
    return tf.identity(tf.constant(array))


def to_numpy(x: Tensor) -> npt.NDArray[np.generic]:
    return np.asarray(x.numpy())


def full(shape: Sequence[int], value: float, dtype: str) -> Tensor:
    one = tf.constant(bool(value) if dtype == "bool" else value, dtype)  # in a graph, a number cannot become a bool
    return tf.fill(tuple(shape), one) if len(shape) else one


def arange(start: int, stop: int, dtype: str) -> Tensor:
    return tf.constant(np.arange(start, stop, dtype=dtype))


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def dtype(x: Tensor) -> str:
    return str(x.dtype.name)


def cast(x: Tensor, dtype: str) -> Tensor:
    return tf.cast(x, dtype)


# element by element, broadcasting

add = tf.add
sub = tf.subtract
mul = tf.multiply
pow = tf.pow
maximum = tf.maximum
minimum = tf.minimum
neg = tf.negative
abs = tf.abs
exp = tf.exp
log = tf.math.log
sqrt = tf.sqrt
tanh = tf.tanh
sigmoid = tf.sigmoid
erf = tf.math.erf
equal = tf.equal
less = tf.less
logical_and = tf.logical_and
logical_not = tf.logical_not
where = tf.where


def div(x: Tensor, y: Tensor) -> Tensor:
    """Divide. The quotient of integers is an integer, as in ONNX."""
    return tf.realdiv(x, y) if x.dtype.is_floating else tf.truncatediv(x, y)


# shape


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return tf.reshape(x, tuple(shape))


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    return tf.transpose(x, tuple(perm))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return tf.broadcast_to(x, tuple(shape))


def concat(xs: Sequence[Tensor], dim: int) -> Tensor:
    return tf.concat(list(xs), dim)


def slice(x: Tensor, dim: int, start: int, stop: int) -> Tensor:
    begin, size = [0] * len(x.shape), list(x.shape)
    begin[dim], size[dim] = start, stop - start
    return tf.slice(x, begin, size)


# contraction, reduction, selection

matmul = tf.matmul


def reduce_sum(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    return tf.reduce_sum(x, tuple(dims), keepdims=keep)


def reduce_max(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    return tf.reduce_max(x, tuple(dims), keepdims=keep)


def take(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    return tf.gather(x, ids, axis=dim)


def take_along(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    return tf.experimental.numpy.take_along_axis(x, ids, dim)


def topk(x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return the k largest. `tf.math.top_k` and `tf.argmax` put the lower index first among equals; `top_k` needs the last dim."""
    last = len(x.shape) - 1
    perm = [d for d in range(last + 1) if d != dim] + [dim]
    rows = x if dim == last else tf.transpose(x, perm)
    order = _ordered(rows) if x.dtype.is_floating else rows
    ids = tf.argmax(order, last)[..., None] if k == 1 else tf.cast(tf.math.top_k(order, k).indices, "int64")
    values = tf.gather(rows, ids, batch_dims=last)
    if dim != last:
        back = np.argsort(perm).tolist()
        values, ids = tf.transpose(values, back), tf.transpose(ids, back)
    return values, ids


def _ordered(x: Tensor) -> Tensor:
    """Return integers in the order of the floats `x`, with NaN as the largest; TensorFlow's kernels do not order NaN.

    They are the bits of the floats; for negative floats, all bits but the sign are inverted. -0 becomes 0, which it equals.
    """
    whole = tf.int64 if x.dtype == tf.float64 else tf.int32
    zero, nan = tf.constant(0, x.dtype), tf.constant(np.nan, x.dtype)
    bits = tf.bitcast(tf.where(tf.math.is_nan(x), nan, tf.where(tf.equal(x, zero), zero, x)), whole)
    negative = tf.bitwise.right_shift(bits, 8 * whole.size - 1)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(negative, whole.max))


# in place


def update(x: Tensor, rows: Tensor, starts: Tensor, dim: int) -> Tensor:
    """Assign slices of the variable `x`. Its buffer is written in place as long as nothing else holds it."""
    rank, size = len(x.shape), rows.shape[dim]
    starts = tf.cast(starts, "int32")
    mask = sum(1 << d for d in range(rank) if d not in (0, dim))
    for entry in range(rows.shape[0]):
        begin = [entry if d == 0 else starts[entry] if d == dim else 0 for d in range(rank)]
        end = [entry + 1 if d == 0 else starts[entry] + size if d == dim else 0 for d in range(rank)]
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=x.handle,
            begin=begin,
            end=end,
            strides=[1] * rank,
            value=rows[entry : entry + 1],
            begin_mask=mask,
            end_mask=mask,
        )
    return x
