"""Normalisations and softmax over whole dims, in the precision of the input.

Softmax(x) = e / sum e,  e = exp(x - max x)             LogSoftmax(x) = s - log sum exp s,  s = x - max x
RMSNorm(x) = x / sqrt(mean x^2 + eps) * scale           LayerNorm(x) = RMSNorm(x - mean x) + bias
"""

from __future__ import annotations

from collections.abc import Callable

from unitp.engine.operators.family import Family, rank_of, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""


@decomposition("Softmax")
@Prepared
def softmax(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return e / sum e along one dim, in the shape of x."""
    dim = (ctx.attrs.dim(rank_of(ctx)),)

    def step(x: Tensor) -> Tensor:
        exponentials = p.exp(p.sub(x, p.reduce_max(x, dim, True)))
        return p.div(exponentials, p.reduce_sum(exponentials, dim, True))

    return step


@decomposition("LogSoftmax")
@Prepared
def log_softmax(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return the logarithm of the softmax along one dim, in the shape of x."""
    dim = (ctx.attrs.dim(rank_of(ctx)),)

    def step(x: Tensor) -> Tensor:
        shifted = p.sub(x, p.reduce_max(x, dim, True))
        return p.sub(shifted, p.log(p.reduce_sum(p.exp(shifted), dim, True)))

    return step


@decomposition("RMSNormalization")
@Prepared
def rms_normalization(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Return x [..., d] over the root of its mean square, times a scale [d]."""
    epsilon = ctx.attrs.rounded("epsilon")
    return lambda x, scale: p.mul(_unit(p, ctx, x, epsilon), scale)


@decomposition("LayerNormalization")
@Prepared
def layer_normalization(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Return x [..., d] less its mean, over its standard deviation, times a scale [d], plus a bias [d] if there is one."""
    epsilon = ctx.attrs.rounded("epsilon")

    def step(x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
        scaled = p.mul(_unit(p, ctx, p.sub(x, _mean(p, ctx, x)), epsilon), scale)
        return scaled if bias is None else p.add(scaled, bias)

    return step


def _unit(p: Primitives, ctx: Context, x: Tensor, epsilon: float) -> Tensor:
    """Return x over the root of its mean square along the last dim."""
    square = p.add(_mean(p, ctx, p.mul(x, x)), scalar(p, epsilon, ctx.dtype))
    return p.div(x, p.sqrt(square))


def _mean(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    shape = p.shape(x)
    return p.div(p.reduce_sum(x, (len(shape) - 1,), True), scalar(p, shape[-1], ctx.dtype))
