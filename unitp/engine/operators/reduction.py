"""Sums, maxima, means over dims; top-k and arg-max along one, with indices in the whole where a rank holds a part."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from unitp.engine.operators.family import Family, rank_of, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""


@decomposition("ReduceSum")
@Prepared
def reduce_sum(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return the sum over dims, which have size 1 then or are gone; over nothing it is 0."""
    dims, keep = _dims(ctx), ctx.attrs.truth("keepdims")
    return lambda x: p.full(ctx.outputs[0], 0, ctx.dtype) if x is None else p.reduce_sum(x, dims, keep)


@decomposition("ReduceMax")
@Prepared
def reduce_max(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return the maximum over dims, which have size 1 then or are gone; over nothing it is the lowest number of the dtype."""
    dims, keep = _dims(ctx), ctx.attrs.truth("keepdims")

    def step(x: Tensor) -> Tensor:
        if x is None:
            return p.full(ctx.outputs[0], _lowest(ctx.dtype), ctx.dtype)
        if ctx.dtype == "bool":  # whether any is true
            return p.cast(p.reduce_max(p.cast(x, "int32"), dims, keep), "bool")
        return p.reduce_max(x, dims, keep)

    return step


@decomposition("ReduceMean")
@Prepared
def reduce_mean(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return the mean over dims, which have size 1 then or are gone."""
    dims, keep = _dims(ctx), ctx.attrs.truth("keepdims")

    def step(x: Tensor) -> Tensor:
        count = prod(p.shape(x)[d] for d in dims)
        return p.div(p.reduce_sum(x, dims, keep), scalar(p, count, ctx.dtype))

    return step


@decomposition("TopK", "TopKPart")
@Prepared
def topk(p: Primitives, ctx: Context) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the candidates of this rank's part and their places in the whole (int64), as many as the output has here."""
    dim, start = ctx.attrs.dim(rank_of(ctx)), ctx.start("v")
    count = ctx.outputs[0][dim]

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        values, ids = p.topk(x, count, dim)
        return values, p.add(ids, scalar(p, start, "int64")) if start else ids

    return step


@decomposition("ArgMax")
@Prepared
def argmax(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return the place of the maximum along a dim (int64), which has size 1 then or is gone; of equal ones the first."""
    dim = ctx.attrs.dim(rank_of(ctx))
    return lambda x: p.reshape(p.topk(x, 1, dim)[1], ctx.outputs[0])


def _dims(ctx: Context) -> tuple[int, ...]:
    return tuple(sorted(ctx.attrs.dims(rank_of(ctx))))


def _lowest(dtype: str) -> float:
    if dtype == "bool":
        return False
    return int(np.iinfo(dtype).min) if dtype.startswith("int") else -np.inf
