"""Contractions. MatMul's right operand may be what a backend's `pack` made of a parameter."""

from __future__ import annotations

from collections.abc import Callable

from unitp.program.decompositions.registry import decomposition, integer, number, scalar
from unitp.program.overrides import Prepared
from unitp.program.primitives import Primitives, Tensor
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
        left = p.transpose(a, (1, 0)) if integer(ctx, "transA", 0) else a
        right = p.transpose(b, (1, 0)) if integer(ctx, "transB", 0) else b
        out = _scaled(p, ctx, p.matmul(left, right), "alpha")
    return out if c is None else p.add(out, _scaled(p, ctx, c, "beta"))


def _scaled(p: Primitives, ctx: Context, x: Tensor, name: str) -> Tensor:
    factor = number(ctx, name, 1.0)
    return x if factor == 1.0 else p.mul(x, scalar(p, factor, ctx.dtype))
