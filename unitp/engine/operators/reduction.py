"""Sums, maxima, means over dims; top-k and arg-max along one, with indices in the whole where a rank holds a part."""

from __future__ import annotations

from math import prod

import numpy as np

from unitp.engine.operators.decompositions import decomposition, rank_of, scalar
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context


@decomposition("ReduceSum")
def reduce_sum(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    if x is None:
        return p.full(ctx.outputs[0], 0, ctx.dtype)
    return p.reduce_sum(x, ctx.attrs.dims(rank_of(ctx)), _keeps(ctx))


@decomposition("ReduceMax")
def reduce_max(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    if x is None:
        return p.full(ctx.outputs[0], _lowest(ctx.dtype), ctx.dtype)
    if ctx.dtype == "bool":  # whether any is true
        return p.cast(p.reduce_max(p.cast(x, "int32"), ctx.attrs.dims(rank_of(ctx)), _keeps(ctx)), "bool")
    return p.reduce_max(x, ctx.attrs.dims(rank_of(ctx)), _keeps(ctx))


@decomposition("ReduceMean")
def reduce_mean(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    shape, dims = p.shape(x), ctx.attrs.dims(rank_of(ctx))
    return p.div(p.reduce_sum(x, dims, _keeps(ctx)), scalar(p, prod(shape[d] for d in dims), ctx.dtype))


@decomposition("TopK", "TopKPart")
def topk(p: Primitives, ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates of this rank's part: as many as the output has here, at most all."""
    dim = ctx.attrs.dim(rank_of(ctx))
    values, ids = p.topk(x, ctx.outputs[0][dim], dim)
    start = ctx.start("v")
    return values, p.add(ids, scalar(p, start, "int64")) if start else ids


@decomposition("ArgMax")
def argmax(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    _, ids = p.topk(x, 1, ctx.attrs.dim(rank_of(ctx)))
    return p.reshape(ids, ctx.outputs[0])


def _keeps(ctx: Context) -> bool:
    return ctx.attrs.truth("keepdims")


def _lowest(dtype: str) -> float:
    if dtype == "bool":
        return False
    return int(np.iinfo(dtype).min) if dtype.startswith("int") else -np.inf
