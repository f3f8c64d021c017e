"""Contractions. MatMul's right operand may be what a backend's `pack` made of a parameter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from unitp.engine.operators.family import Family, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.graph.ops.linear import einsum_terms
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""


@decomposition("MatMul")
@Prepared
def matmul(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Return x y: [..., m, k] and [..., k, n] give [..., m, n]. Over an empty part of k it is zero."""
    if any(shape is not None and 0 in shape for shape in ctx.inputs):
        return lambda x, y: p.full(ctx.outputs[0], 0, ctx.dtype)
    return p.matmul


@decomposition("Gemm")
@Prepared
def gemm(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Return alpha * a b + beta * c: [m, k] (or [k, m]) and [k, n] (or [n, k]) give [m, n], to which c broadcasts.

    Over an empty part of the contracted dim the product is zero, and the result is the bias.
    """
    left, right = ctx.attrs.truth("transA"), ctx.attrs.truth("transB")
    alpha, beta = ctx.attrs.rounded("alpha"), ctx.attrs.rounded("beta")

    def step(a: Tensor, b: Tensor, c: Tensor = None) -> Tensor:
        if a is None or b is None:
            out = p.full(ctx.outputs[0], 0, ctx.dtype)
        else:
            product = p.matmul(p.transpose(a, (1, 0)) if left else a, p.transpose(b, (1, 0)) if right else b)
            out = _scaled(p, ctx, product, alpha)
        return out if c is None else p.add(out, _scaled(p, ctx, c, beta))

    return step


@decomposition("Einsum")
@Prepared
def einsum(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a contraction, each letter of which is a dim, as one matrix product.

    Letters of both operands and the output are batch dims; the others are rows of x, columns of y, or summed.
    """
    left, right, out = einsum_terms(ctx.attrs)
    sizes = dict(zip(left + right, (*(ctx.inputs[0] or ()), *(ctx.inputs[1] or ())), strict=True))
    batch = [c for c in left if c in right and c in out]
    summed = [c for c in left if c in right and c not in out]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]

    def matrix(value: Tensor, letters: str, first: list[str], second: list[str]) -> Tensor:
        order = tuple(letters.index(c) for c in (*batch, *first, *second))
        moved = value if order == tuple(range(len(order))) else p.transpose(value, order)
        shape = (*(sizes[c] for c in batch), *(prod(sizes[c] for c in some) for some in (first, second)))
        return p.reshape(moved, shape)

    made = [*batch, *rows, *columns]
    shape, order = tuple(sizes[c] for c in made), tuple(made.index(c) for c in out)

    def step(x: Tensor, y: Tensor) -> Tensor:
        if x is None or y is None:
            return p.full(ctx.outputs[0], 0, ctx.dtype)
        product = p.matmul(matrix(x, left, rows, summed), matrix(y, right, summed, columns))
        shaped = p.reshape(product, shape)
        return shaped if order == tuple(range(len(order))) else p.transpose(shaped, order)

    return step


def _scaled(p: Primitives, ctx: Context, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else p.mul(x, scalar(p, factor, ctx.dtype))
