"""Look-ups by index. Of a split dim a rank looks up the rows that it holds and gives zeros for the others."""

from __future__ import annotations

from collections.abc import Callable

from unitp.engine.operators.family import Family, rank_of, scalar, unwrapped
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.layout import Interval
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""


@decomposition("Gather")
@Prepared
def gather(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the rows of `data` at `ids` along a dim: the shape of `ids` replaces it. Rows of other ranks are zeros."""
    rank = rank_of(ctx)
    dim = ctx.attrs.dim(rank)
    size, own = _whole(ctx, dim), ctx.intervals.get("v")

    def step(data: Tensor, ids: Tensor) -> Tensor:
        if data is None:
            return p.full(ctx.outputs[0], 0, ctx.dtype)
        ids = unwrapped(p, ids, size)
        return p.take(data, ids, dim) if own is None else _held(p, ctx, data, ids, dim, own)

    return step


def _held(p: Primitives, ctx: Context, data: Tensor, ids: Tensor, dim: int, own: Interval) -> Tensor:
    """Return the rows that this rank holds, which are those of the interval `own`, and zeros for the others."""
    start, stop = own
    dtype = p.dtype(ids)
    places = p.sub(ids, scalar(p, start, dtype))
    zero = scalar(p, 0, dtype)
    inside = p.logical_and(p.logical_not(p.less(places, zero)), p.less(places, scalar(p, stop - start, dtype)))
    rows = p.take(data, p.where(inside, places, zero), dim)
    mask = p.reshape(inside, (*(1,) * dim, *p.shape(ids), *(1,) * (rank_of(ctx) - dim - 1)))
    return p.where(mask, rows, scalar(p, 0, ctx.dtype))


@decomposition("GatherND")
def gather_nd(p: Primitives, ctx: Context, data: Tensor, ids: Tensor) -> Tensor:
    """Return the rows of `data` [b, s, d] at `ids` [b, n, 1], as [b, n, d]: those of the flattened data."""
    batch, rows, columns = p.shape(data)
    count = p.shape(ids)[1]
    dtype = p.dtype(ids)
    places = unwrapped(p, p.reshape(ids, (batch, count)), rows)
    first = p.mul(p.reshape(p.arange(0, batch, dtype), (batch, 1)), scalar(p, rows, dtype))
    return p.take(p.reshape(data, (batch * rows, columns)), p.add(places, first), 0)


@decomposition("GatherElements")
@Prepared
def gather_elements(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the elements of `data` at `ids` along a dim, in the shape of `ids`."""
    dim = ctx.attrs.dim(rank_of(ctx))
    size = _whole(ctx, dim)
    return lambda data, ids: p.take_along(data, unwrapped(p, ids, size), dim)


def _whole(ctx: Context, dim: int) -> int:
    shape = ctx.whole[0]
    return shape[dim] if shape else 0
