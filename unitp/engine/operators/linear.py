"""Contractions. MatMul's right operand may be what a backend's `pack` made of a parameter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from unitp.engine.operators.decompositions import decomposition, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.graph.ops.linear import einsum_terms
from unitp.program.rank import Context


@decomposition("MatMul")
@Prepared
def matmul(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    if any(shape is not None and 0 in shape for shape in ctx.inputs):
        return lambda x, y: p.full(ctx.outputs[0], 0, ctx.dtype)
    return p.matmul


@decomposition("Gemm")
def gemm(p: Primitives, ctx: Context, a: Tensor, b: Tensor, c: Tensor = None) -> Tensor:
    """alpha * a b + beta * c. Over an empty part of the contracted dim the product is zero and the bias is left."""
    if a is None or b is None:
        out = p.full(ctx.outputs[0], 0, ctx.dtype)
    else:
        left = p.transpose(a, (1, 0)) if ctx.attrs.truth("transA") else a
        right = p.transpose(b, (1, 0)) if ctx.attrs.truth("transB") else b
        out = _scaled(p, ctx, p.matmul(left, right), "alpha")
    return out if c is None else p.add(out, _scaled(p, ctx, c, "beta"))


@decomposition("Einsum")
def einsum(p: Primitives, ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """One matrix product: letters of both sides and the output are batch, then rows of x, columns of y, and the sum."""
    if x is None or y is None:
        return p.full(ctx.outputs[0], 0, ctx.dtype)
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

    product = p.matmul(matrix(x, left, rows, summed), matrix(y, right, summed, columns))
    made = [*batch, *rows, *columns]
    shaped = p.reshape(product, tuple(sizes[c] for c in made))
    order = tuple(made.index(c) for c in out)
    return shaped if order == tuple(range(len(order))) else p.transpose(shaped, order)


def _scaled(p: Primitives, ctx: Context, x: Tensor, name: str) -> Tensor:
    factor = ctx.attrs.rounded(name)
    return x if factor == 1.0 else p.mul(x, scalar(p, factor, ctx.dtype))
