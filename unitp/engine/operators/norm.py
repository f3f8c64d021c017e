"""Normalisations and softmax over whole dims, in the precision of the input.

Softmax(x) = e / sum e,  e = exp(x - max x)             LogSoftmax(x) = s - log sum exp s,  s = x - max x
RMSNorm(x) = x / sqrt(mean x^2 + eps) * scale           LayerNorm(x) = RMSNorm(x - mean x) + bias
"""

from __future__ import annotations

from unitp.engine.operators.decompositions import decomposition, rank_of, scalar
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context


@decomposition("Softmax")
def softmax(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    dim = (ctx.attrs.dim(rank_of(ctx)),)
    exponentials = p.exp(p.sub(x, p.reduce_max(x, dim, True)))
    return p.div(exponentials, p.reduce_sum(exponentials, dim, True))


@decomposition("LogSoftmax")
def log_softmax(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    dim = (ctx.attrs.dim(rank_of(ctx)),)
    shifted = p.sub(x, p.reduce_max(x, dim, True))
    return p.sub(shifted, p.log(p.reduce_sum(p.exp(shifted), dim, True)))


@decomposition("RMSNormalization")
def rms_normalization(p: Primitives, ctx: Context, x: Tensor, scale: Tensor) -> Tensor:
    return p.mul(_unit(p, ctx, x), scale)


@decomposition("LayerNormalization")
def layer_normalization(p: Primitives, ctx: Context, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
    scaled = p.mul(_unit(p, ctx, p.sub(x, _mean(p, ctx, x))), scale)
    return scaled if bias is None else p.add(scaled, bias)


def _unit(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """x over the root of its mean square along the last dim."""
    square = p.add(_mean(p, ctx, p.mul(x, x)), scalar(p, ctx.attrs.rounded("epsilon"), ctx.dtype))
    return p.div(x, p.sqrt(square))


def _mean(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    shape = p.shape(x)
    return p.div(p.reduce_sum(x, (len(shape) - 1,), True), scalar(p, shape[-1], ctx.dtype))
