"""Frequent operators in few NumPy calls, with results written in place. Each equals its decomposition, up to rounding.

A weight `[n, k]` is used through its transpose, which is a view. `x @ W.T` of one row then reads memory in its order, and a
parameter stays as it was loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.engine import operators as decompositions
from unitp.engine.operators.attention import Run, blocks_of, runs, scale_of
from unitp.engine.overrides import Overrides, Prepared, bound
from unitp.engine.primitives import Primitives
from unitp.engine.widening import in_arrays, widened
from unitp.program.rank import Context
from unitp_numpy.stored import product

Array = npt.NDArray[Any]
FLOATS = ("float32", "float64")
FEW = 6
"""Up to this many rows, a product is computed row by row; OpenBLAS's matrix product takes twice as long for them."""


def pack(p: Primitives, weight: Array, transposed: bool) -> tuple[Array, Array]:
    """Return MatMul's right operand `[k, n]` in Fortran order, and what is stored.

    A stored `[n, k]` is kept, and the operand is its transpose; a stored `[k, n]` is replaced by a copy.
    """
    if transposed:
        return weight.T, weight
    operand = np.asfortranarray(weight)
    return operand, operand


overrides = Overrides(pack)


@overrides("MatMul", *FLOATS)
@Prepared
def matmul(p: Primitives, ctx: Context) -> Callable[[Array, Array], Array]:
    x, y = ctx.inputs
    if ctx.stored:
        return _of_stored(ctx)
    if x is None or y is None or len(y) > 2:
        return np.matmul
    rows, columns, out = int(np.prod(x[:-1])), x[-1], ctx.outputs[0]
    if rows == 1:
        return lambda x, y: _row(x.reshape(columns), y).reshape(out)
    if rows > FEW:
        return lambda x, y: np.dot(x.reshape(rows, columns), y).reshape(out)

    def row_by_row(x: Array, y: Array) -> Array:
        result = np.empty((rows, out[-1]), x.dtype)
        for row, into in zip(x.reshape(rows, columns), result, strict=True):
            into[...] = _row(row, y)
        return result.reshape(out)

    return row_by_row


def _of_stored(ctx: Context) -> Callable[[Array, Array], Array]:
    """Return the product with a weight of 16 bits."""
    x, y = ctx.inputs
    out, dtype = ctx.outputs[0], ctx.stored
    if x is None or y is None or len(y) > 2:
        return lambda x, y: np.matmul(x, widened(y, dtype))
    rows, columns = int(np.prod(x[:-1])), x[-1]

    def step(x: Array, y: Array) -> Array:
        result = np.empty((rows, out[-1]), x.dtype)
        product(x.reshape(rows, columns), y.T, dtype, result)
        return result.reshape(out)

    return step


def _row(x: Array, y: Array) -> Array:
    """Return `x @ y` of a vector x. einsum reads a weight in Fortran order at 20 to 22 GB/s, OpenBLAS at 12 to 16."""
    return np.asarray(np.einsum("k,nk->n", x, y.T)) if y.flags.f_contiguous else np.dot(x, y)


@overrides("Gather", "float32")
@Prepared
def gather(p: Primitives, ctx: Context) -> Callable[[Array, Array], Array]:
    """Look up rows; in a table of 16 bits, their bits, which are then widened."""
    general = decompositions.get("Gather")
    if not ctx.stored:
        return bound(general, p, ctx)
    look_up = bound(general, p, ctx.of_dtype(in_arrays(ctx.stored)))
    return lambda data, ids: widened(look_up(data, ids), ctx.stored)


@overrides("RMSNormalization", *FLOATS)
@Prepared
def rms_normalization(p: Primitives, ctx: Context) -> Callable[[Array, Array], Array]:
    shape = ctx.outputs[0]
    size, epsilon = shape[-1], ctx.attrs.rounded("epsilon")
    if int(np.prod(shape)) > size:

        def rows(x: Array, scale: Array) -> Array:
            square = np.einsum("...d,...d->...", x, x)[..., None]
            square /= size
            square += square.dtype.type(epsilon)
            out = x / np.sqrt(square, out=square)
            return np.multiply(out, scale, out=out)

        return rows

    def row(x: Array, scale: Array) -> Array:
        flat = x.reshape(size)
        out = x * x.dtype.type(1 / sqrt(flat.dot(flat) / size + epsilon))
        return np.multiply(out, scale, out=out)

    return row


@overrides("Swish", *FLOATS)
@Prepared
def swish(p: Primitives, ctx: Context) -> Callable[[Array], Array]:
    """Compute x / (1 + exp(-alpha x)) in place."""
    alpha = np.dtype(ctx.dtype).type(ctx.attrs.rounded("alpha"))

    def step(x: Array) -> Array:
        out = np.multiply(x, -alpha)
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        return np.divide(x, out, out=out)

    return step


@overrides("RotaryEmbedding", *FLOATS)
@Prepared
def rotary_embedding(p: Primitives, ctx: Context) -> Callable[[Array, Array, Array, Array], Array]:
    shape, interleaved = ctx.outputs[0], ctx.attrs.truth("interleaved")
    size = ctx.attrs.whole("rotary_embedding_dim") or shape[3]
    half = size // 2
    every = (np.s_[..., 0:size:2], np.s_[..., 1:size:2])
    first, second = every if interleaved else (np.s_[..., :half], np.s_[..., half:size])

    def step(x: Array, cos: Array, sin: Array, positions: Array) -> Array:
        c, s = cos[positions][:, None], sin[positions][:, None]
        a, b = x[first], x[second]
        out = np.empty(shape, x.dtype)
        np.multiply(a, c, out=out[first])
        np.multiply(a, s, out=out[second])
        out[first] -= b * s
        out[second] += b * c
        if size < shape[3]:
            out[..., size:] = x[..., size:]
        return out

    return step


@overrides("Attention", *FLOATS)
@Prepared
def attention(p: Primitives, ctx: Context) -> Callable[..., Array]:
    """Compute causal or full attention over the valid keys; the decomposition serves masks, soft caps and queries that see no key."""
    general = decompositions.get("Attention")
    if (len(ctx.inputs) > 3 and ctx.inputs[3] is not None) or ctx.attrs.truth("softcap"):
        return lambda *inputs: general(p, ctx, *inputs)
    queries, keys = (shape[2] if shape else 0 for shape in ctx.inputs[:2])
    causal = ctx.attrs.truth("is_causal")
    scale = np.dtype(ctx.dtype).type(scale_of(ctx))
    head_runs, cuts = runs(ctx), blocks_of(ctx)

    def step(q: Array, k: Array, v: Array, *rest: Array | None) -> Array:
        n = rest[3] if len(rest) > 3 else None
        valid = np.array([keys]) if n is None else n
        last, fewest = int(valid.max()), int(valid.min())
        if fewest < (queries if causal and n is not None else 1):
            return np.asarray(general(p, ctx, q, k, v, *rest))
        first = 0 if n is None else valid - queries
        hidden = None
        if causal and (queries > 1 or n is None):
            hidden = np.arange(last) > (np.arange(queries) + np.reshape(first, (-1, 1)))[..., None]
        elif fewest < last:
            hidden = (np.arange(last) >= valid[:, None])[:, None]
        k, v = k[:, :, :last], v[:, :, :last]
        if len(cuts) == 1:
            return _attend(head_runs, q * scale, k, v, hidden)
        rows = [hidden if hidden is None or hidden.shape[1] == 1 else hidden[:, a:b] for a, b in cuts]
        done = [_attend(head_runs, q[:, :, a:b] * scale, k, v, row) for (a, b), row in zip(cuts, rows, strict=True)]
        return np.concatenate(done, 2)

    return step


def _attend(head_runs: list[Run], q: Array, k: Array, v: Array, hidden: Array | None) -> Array:
    batch, _, queries, size = q.shape
    parts = []
    for head, group, groups, share in head_runs:
        rows = q[:, head : head + groups * share].reshape(batch, groups, share * queries, size)
        scores = np.matmul(rows, k[:, group : group + groups].swapaxes(2, 3))
        if hidden is not None:
            np.copyto(scores.reshape(batch, groups, share, queries, -1), -np.inf, where=hidden[:, None, None])
        scores -= np.maximum.reduce(scores, 3, keepdims=True)
        np.exp(scores, out=scores)
        out = np.matmul(scores, v[:, group : group + groups])
        out /= np.add.reduce(scores, 3, keepdims=True)
        parts.append(out.reshape(batch, groups * share, queries, -1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
