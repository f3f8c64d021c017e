"""Which instructions a kernel carries out, and the row of the table for each.

There are kernels for products and attention of up to `FEW` rows (a decode step, some sequences at once, the last chunk of a
prompt), because reading the weight then takes most of the time. For more rows, BLAS makes better use of what it has read. An
operator that goes over its input once has a kernel for any number of rows, because NumPy would go over it several times. An
instruction without a kernel (masks, other dtypes, odd shapes) remains a step in NumPy.

A function per operator gets the instruction's context and its inputs as they lie in memory, and returns a row or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from unitp.engine.operators.attention import runs, scale_of
from unitp.program.rank import Context
from unitp_numpy.kernels.table import Array, Input, Op, Output, Row, bits, contiguous, strides

FEW = 16
"""Up to this many rows of x, the kernel reads the weight of a product faster than BLAS does."""

Inputs = Sequence[Array | None]


def row_of(ctx: Context, inputs: Inputs) -> Row | None:
    """Return the row that carries out an operator on inputs that lie in memory like these; None if no kernel does."""
    find = _KERNELS.get(ctx.op)
    if (
        find is None
        or len(ctx.outputs) != 1
        or 0 in ctx.outputs[0]
        or any(x is not None and x.size == 0 for x in inputs)
    ):
        return None
    return find(ctx, inputs)


def _product(ctx: Context, inputs: Inputs) -> Row | None:
    x, w = inputs
    if x is None or w is None or w.ndim != 2 or not (_float(ctx, x) and contiguous(x) and contiguous(w.T)):
        return None
    if (op := _of_weights(ctx, Op.PRODUCT, w)) is None:
        return None
    k, n = w.shape
    m = x.size // k
    return Row(op, (m, n, k, Input(0), Input(1), Output())) if m <= FEW and x.shape[-1] == k else None


def _norm(ctx: Context, inputs: Inputs) -> Row | None:
    x, scale = inputs
    if x is None or scale is None or not (_float(ctx, x, scale) and contiguous(x) and contiguous(scale)):
        return None
    d = x.shape[-1]
    last = ctx.attrs.dim(x.ndim) == x.ndim - 1
    if not last or scale.shape != (d,):
        return None
    epsilon = ctx.attrs.rounded("epsilon")
    return Row(Op.NORM, (x.size // d, d, Input(0), Input(1), Output(), bits(epsilon)))


def _rotate(ctx: Context, inputs: Inputs) -> Row | None:
    given = [x for x in inputs if x is not None]
    if len(given) != 4 or len(inputs) != 4 or not all(map(contiguous, given[1:])):
        return None
    x, cos, sin, at = given
    if not _float(ctx, x, cos, sin) or at.dtype != np.int64 or (x.ndim, cos.ndim, at.ndim) != (4, 2, 2):
        return None
    b, h, s, d = x.shape
    half = (ctx.attrs.whole("rotary_embedding_dim") or d) // 2
    if strides(x)[3] != 1 or cos.shape[1] != half or sin.shape != cos.shape or at.shape != (b, s):
        return None
    pairs = ctx.attrs.whole("interleaved")
    sizes = (b, h, s, d, half, pairs, *strides(x)[:3])
    return Row(Op.ROTATE, (*sizes, Input(0), Input(1), Input(2), Input(3), Output()))


def _attend(ctx: Context, inputs: Inputs) -> Row | None:
    (q, k, v), others, n = inputs[:3], inputs[3:6], inputs[6] if len(inputs) > 6 else None
    if q is None or k is None or v is None or any(x is not None for x in others) or ctx.attrs.truth("softcap"):
        return None
    if not (_float(ctx, q, k, v) and q.ndim == k.ndim == v.ndim == 4 and contiguous(q)):
        return None
    b, h, s, d = q.shape
    groups, keys, e = k.shape[1], k.shape[2], v.shape[3]
    room = _room(k)
    if (
        b * s > FEW
        or room is None
        or room != _room(v)
        or v.shape[:3] != k.shape[:3]
        or (n is not None and n.dtype != np.int64)
    ):
        return None
    causal = ctx.attrs.whole("is_causal")
    valid: Input | Array = Input(6) if n is not None else np.full(b, s if causal else keys)
    heads = np.array([r.group + i for r in runs(ctx) for i in range(r.groups) for _ in range(r.share)], np.int64)
    scores = _scores(keys, q.dtype)
    scale = bits(scale_of(ctx))
    sizes = (b, h, s, d, groups, room, keys, e, scale, causal)
    return Row(Op.ATTEND, (*sizes, Input(0), Input(1), Input(2), heads, valid, scores, Output()))


def _room(x: Array) -> int | None:
    """Return `room` if x [b, g, rows, d] is the first rows of a state [b, g, room, d], else None."""
    b, g, rows, d = x.shape
    batch, group, row, one = strides(x)
    room = group // d if g > 1 else batch // d if b > 1 else rows
    wanted = (g * room * d, room * d, d, 1)
    right = all(n == 1 or a == w for n, a, w in zip(x.shape, (batch, group, row, one), wanted, strict=True))
    return room if right and room >= rows else None


@lru_cache(maxsize=64)
def _scores(keys: int, dtype: np.dtype[Any]) -> Array:
    """Return space for the scores of a query. All rows share it, because they run one after the other."""
    return np.empty(keys, dtype)


def update(state: Array, rows: Array, starts: Array, dim: int) -> Row | None:
    """Return the row that writes rows [b, h, s, d] into a state [b, h, room, d] in place; None if no kernel does."""
    if state.ndim != 4 or dim != 2 or starts.dtype != np.int64 or rows.dtype != state.dtype:
        return None
    if not (_is_float(state) and contiguous(state) and strides(rows)[3] == 1 and contiguous(starts)):
        return None
    b, h, room, d = state.shape
    return Row(Op.UPDATE, (b, h, rows.shape[2], d, room, *strides(rows)[:3], Input(1), Input(2), Input(0)))


def _binary(ctx: Context, inputs: Inputs) -> Row | None:
    a, b = inputs
    if a is None or b is None or a.shape != b.shape or not (_float(ctx, a, b) and contiguous(a) and contiguous(b)):
        return None
    return Row(Op[ctx.op.upper()], (a.size, Input(0), Input(1), Output()))


def _swish(ctx: Context, inputs: Inputs) -> Row | None:
    (x,) = inputs
    if x is None or not (_float(ctx, x) and contiguous(x)):
        return None
    return Row(Op.SWISH, (x.size, bits(ctx.attrs.rounded("alpha")), Input(0), Output()))


def move(x: Array) -> Row | None:
    """Return the row that makes a contiguous copy of an array; None if no kernel does."""
    if x.ndim > 4 or not _is_float(x) or strides(x)[-1] != 1:
        return None
    more = 4 - x.ndim
    return Row(Op.MOVE, (*(1,) * more, *x.shape, *(0,) * more, *strides(x)[:-1], Input(0), Output()))


def _look_up(ctx: Context, inputs: Inputs) -> Row | None:
    data, ids = inputs
    if data is None or ids is None or data.ndim != 2 or ctx.attrs.dim(2) != 0:
        return None
    if not (contiguous(data) and contiguous(ids) and ids.dtype == np.int64):
        return None
    if (op := _of_weights(ctx, Op.LOOK_UP, data)) is None:
        return None
    whole = (ctx.whole[0] or data.shape)[0]
    first, stop = ctx.intervals.get("v", (0, whole))
    return Row(op, (ids.size, data.shape[1], first, stop, whole, Input(1), Input(0), Output()))


_KERNELS: dict[str, Callable[[Context, Inputs], Row | None]] = {
    "MatMul": _product,
    "RMSNormalization": _norm,
    "RotaryEmbedding": _rotate,
    "Attention": _attend,
    "Add": _binary,
    "Mul": _binary,
    "Swish": _swish,
    "Gather": _look_up,
}


def _of_weights(ctx: Context, op: Op, weights: Array) -> Op | None:
    """Return `op` for weights as they are stored; None if they are neither in the type that is computed in nor in 16 bits."""
    if not ctx.stored:
        return op if _float(ctx, weights) else None
    return Op[f"{op.name}_{ctx.stored.upper()}"] if ctx.dtype == "float32" and weights.dtype == np.uint16 else None


def _float(ctx: Context, *arrays: Array) -> bool:
    """Say whether kernels compute in the operator's type, and all arrays have it."""
    return all(x.dtype == ctx.dtype and _is_float(x) for x in arrays)


def _is_float(x: Array) -> bool:
    return x.dtype in (np.float32, np.float64)
