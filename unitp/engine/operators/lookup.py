"""Look-ups by index. Of a split dim a rank looks up the rows that it holds and gives zeros for the others."""

from __future__ import annotations

from unitp.engine.operators.decompositions import decomposition, rank_of, scalar, unwrapped
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context


@decomposition("Gather")
def gather(p: Primitives, ctx: Context, data: Tensor, ids: Tensor) -> Tensor:
    if data is None:
        return p.full(ctx.outputs[0], 0, ctx.dtype)
    rank = rank_of(ctx)
    dim = ctx.attrs.dim(rank)
    ids = unwrapped(p, ids, _whole(ctx, dim))
    if "v" not in ctx.intervals:
        return p.take(data, ids, dim)
    start, stop = ctx.intervals["v"]
    dtype = p.dtype(ids)
    places = p.sub(ids, scalar(p, start, dtype))
    zero = scalar(p, 0, dtype)
    inside = p.logical_and(p.logical_not(p.less(places, zero)), p.less(places, scalar(p, stop - start, dtype)))
    rows = p.take(data, p.where(inside, places, zero), dim)
    mask = p.reshape(inside, (*(1,) * dim, *p.shape(ids), *(1,) * (rank - dim - 1)))
    return p.where(mask, rows, scalar(p, 0, ctx.dtype))


@decomposition("GatherND")
def gather_nd(p: Primitives, ctx: Context, data: Tensor, ids: Tensor) -> Tensor:
    """One index per place after one batch dim: rows of the flattened data."""
    batch, rows, columns = p.shape(data)
    count = p.shape(ids)[1]
    dtype = p.dtype(ids)
    places = unwrapped(p, p.reshape(ids, (batch, count)), rows)
    first = p.mul(p.reshape(p.arange(0, batch, dtype), (batch, 1)), scalar(p, rows, dtype))
    return p.take(p.reshape(data, (batch * rows, columns)), p.add(places, first), 0)


@decomposition("GatherElements")
def gather_elements(p: Primitives, ctx: Context, data: Tensor, ids: Tensor) -> Tensor:
    dim = ctx.attrs.dim(rank_of(ctx))
    return p.take_along(data, unwrapped(p, ids, _whole(ctx, dim)), dim)


def _whole(ctx: Context, dim: int) -> int:
    shape = ctx.whole[0]
    return shape[dim] if shape else 0
