"""Operators that move data and compute nothing. Local sizes come from the rank's output shapes, not from attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import accumulate, pairwise

from unitp.engine.operators.family import Family, rank_of, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.graph.ops.shaping import permutation
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""

Step = Callable[[Tensor], Tensor]


@decomposition("Reshape", "Squeeze", "Unsqueeze")
@Prepared
def reshape(p: Primitives, ctx: Context) -> Step:
    """Return the elements of x, row-major, in the shape of the output."""
    change, shape = p.reshape, ctx.outputs[0]
    return lambda x: change(x, shape)


@decomposition("Expand")
def expand(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """Return x broadcast to the shape of the output."""
    return p.expand(x, ctx.outputs[0])


@decomposition("Transpose")
@Prepared
def transpose(p: Primitives, ctx: Context) -> Step:
    """Return x with its dims reordered: dim i of the result is dim `perm[i]` of x."""
    change, perm = p.transpose, permutation(ctx.attrs, rank_of(ctx))
    return lambda x: change(x, perm)


@decomposition("Concat")
@Prepared
def concat(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Return the tensors joined along a dim, without those of which this rank holds nothing."""
    dim = ctx.attrs.dim(len(ctx.outputs[0]))

    def step(*xs: Tensor) -> Tensor:
        held = [x for x in xs if x is not None]
        return held[0] if len(held) == 1 else p.concat(held, dim)

    return step


@decomposition("Split")
@Prepared
def split(p: Primitives, ctx: Context) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the parts of x along a dim, as long as the outputs are there; None for a part without rows."""
    dim = ctx.attrs.dim(rank_of(ctx))
    parts = list(pairwise([0, *accumulate(shape[dim] for shape in ctx.outputs)]))
    return lambda x: tuple(p.slice(x, dim, a, b) if a < b else None for a, b in parts)


@decomposition("Slice")
@Prepared
def slice_(p: Primitives, ctx: Context) -> Step:
    """Return the rows `start` to `stop` - 1 of x along each of some dims."""
    shape, cut = ctx.inputs[0] or (), p.slice
    dims = ctx.attrs.dims(len(shape))
    bounds = zip(dims, ctx.attrs.wholes("starts"), ctx.attrs.wholes("ends"), strict=True)
    parts = [(dim, a, b) for dim, a, b in bounds if (a, b) != (0, shape[dim])]
    if len(parts) == 1:
        dim, a, b = parts[0]
        return lambda x: cut(x, dim, a, b)
    return lambda x: reduce(lambda y, part: cut(y, *part), parts, x)


@decomposition("TensorScatter")
@Prepared
def tensor_scatter(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a new tensor: `past` with `update` written from `starts[i]` on, for each entry i of dim 0.

    (A state is written in place: `unitp.engine.interpreter`.)
    """
    dim = ctx.attrs.dim(rank_of(ctx))

    def step(past: Tensor, update: Tensor, starts: Tensor) -> Tensor:
        shape, rows = p.shape(past), p.shape(update)
        around = (shape[0], *(1,) * (dim - 1), shape[dim], *(1,) * (len(shape) - dim - 1))
        zero, count = scalar(p, 0, "int64"), scalar(p, rows[dim], "int64")
        places = p.reshape(p.arange(0, shape[dim], "int64"), (1, shape[dim]))
        places = p.sub(places, p.reshape(p.cast(starts, "int64"), (shape[0], 1)))
        inside = p.logical_and(p.logical_not(p.less(places, zero)), p.less(places, count))
        ids = p.expand(p.reshape(p.where(inside, places, zero), around), shape)
        return p.where(p.reshape(inside, around), p.take_along(update, ids, dim), past)

    return step
