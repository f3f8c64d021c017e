"""Operators that move data and compute nothing. Local sizes come from the rank's output shapes, not from attributes."""

from __future__ import annotations

from itertools import accumulate, pairwise

from unitp.program.decompositions.registry import decomposition, dim_of, integers, rank_of, scalar
from unitp.program.primitives import Primitives, Tensor
from unitp.program.rank import Context


@decomposition("Reshape", "Squeeze", "Unsqueeze")
def reshape(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    return p.reshape(x, ctx.outputs[0])


@decomposition("Expand")
def expand(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    return p.expand(x, ctx.outputs[0])


@decomposition("Transpose")
def transpose(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    perm = integers(ctx, "perm") if "perm" in ctx.attrs else tuple(reversed(range(rank_of(ctx))))
    return p.transpose(x, perm)


@decomposition("Concat")
def concat(p: Primitives, ctx: Context, *xs: Tensor) -> Tensor:
    held = [x for x in xs if x is not None]
    return held[0] if len(held) == 1 else p.concat(held, dim_of(ctx, len(ctx.outputs[0]), name="axis"))


@decomposition("Split")
def split(p: Primitives, ctx: Context, x: Tensor) -> tuple[Tensor, ...]:
    dim = dim_of(ctx, rank_of(ctx))
    edges = [0, *accumulate(shape[dim] for shape in ctx.outputs)]
    return tuple(p.slice(x, dim, a, b) if a < b else None for a, b in pairwise(edges))


@decomposition("Slice")
def slice_(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    rank, shape = rank_of(ctx), p.shape(x)
    for axis, a, b in zip(integers(ctx, "axes"), integers(ctx, "starts"), integers(ctx, "ends"), strict=True):
        dim = axis % rank
        if (a, b) != (0, shape[dim]):
            x = p.slice(x, dim, a, b)
    return x


@decomposition("TensorScatter")
def tensor_scatter(p: Primitives, ctx: Context, past: Tensor, update: Tensor, starts: Tensor) -> Tensor:
    """A new tensor: `past` with `update` written from `starts[i]` on. (A state is written in place: `interpret`.)"""
    shape, rows = p.shape(past), p.shape(update)
    dim = dim_of(ctx, len(shape), default=-2)
    around = (shape[0], *(1,) * (dim - 1), shape[dim], *(1,) * (len(shape) - dim - 1))
    zero, count = scalar(p, 0, "int64"), scalar(p, rows[dim], "int64")
    places = p.reshape(p.arange(0, shape[dim], "int64"), (1, shape[dim]))
    places = p.sub(places, p.reshape(p.cast(starts, "int64"), (shape[0], 1)))
    inside = p.logical_and(p.logical_not(p.less(places, zero)), p.less(places, count))
    ids = p.expand(p.reshape(p.where(inside, places, zero), around), shape)
    return p.where(p.reshape(inside, around), p.take_along(update, ids, dim), past)
