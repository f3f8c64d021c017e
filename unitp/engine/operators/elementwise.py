"""Element by element, with NumPy's broadcasting.

Swish(x) = x * sigmoid(alpha * x)
Gelu(x) = x/2 * (1 + erf(x / sqrt 2)), or with tanh(sqrt(2/pi) * (x + 0.044715 x^3)) for approximate="tanh"
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from unitp.engine.operators.family import Family, scalar
from unitp.engine.overrides import Implementation, Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""

_PRIMITIVES = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Max": "maximum",
    "Min": "minimum",
    "Equal": "equal",
    "Less": "less",
    "And": "logical_and",
    "Not": "logical_not",
    "Neg": "neg",
    "Abs": "abs",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Erf": "erf",
    "Where": "where",
}


def _direct(name: str) -> Implementation:
    return Prepared(lambda p, ctx: getattr(p, name))


for _op, _name in _PRIMITIVES.items():
    decomposition(_op)(_direct(_name))


@decomposition("Identity")
def identity(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """Return `x` itself."""
    return x


@decomposition("Cast")
def cast(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """Return `x` in the dtype of the output; floats are truncated toward zero."""
    return p.cast(x, ctx.dtype)


@decomposition("Div")
def div(p: Primitives, ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """Return x / y in the broadcast shape. Integers are divided toward zero (in float64: exact below 2^53)."""
    if not ctx.dtype.startswith("int"):
        return p.div(x, y)
    return p.cast(p.div(p.cast(x, "float64"), p.cast(y, "float64")), ctx.dtype)


@decomposition("Pow")
def power(p: Primitives, ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """Return x to the power of y in the broadcast shape and the dtype of x. Integers with a float y go by float64."""
    if p.dtype(x) == p.dtype(y):
        return p.pow(x, y)
    if not ctx.dtype.startswith("int"):
        return p.pow(x, p.cast(y, ctx.dtype))
    return p.cast(p.pow(p.cast(x, "float64"), p.cast(y, "float64")), ctx.dtype)


@decomposition("Relu")
def relu(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """Return max(x, 0) in the shape of x."""
    return p.maximum(x, scalar(p, 0, ctx.dtype))


@decomposition("Swish")
@Prepared
def swish(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return x * sigmoid(alpha * x) in the shape of x."""
    alpha = ctx.attrs.rounded("alpha")
    return lambda x: p.mul(x, p.sigmoid(x if alpha == 1.0 else p.mul(x, scalar(p, alpha, ctx.dtype))))


@decomposition("Gelu")
@Prepared
def gelu(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return x/2 * (1 + the error function of x / sqrt 2, or its approximation) in the shape of x."""
    approximate = ctx.attrs.word("approximate") == "tanh"

    def step(x: Tensor) -> Tensor:
        if approximate:
            cube = p.mul(p.mul(p.mul(x, x), x), scalar(p, 0.044715, ctx.dtype))
            inner = p.tanh(p.mul(p.add(x, cube), scalar(p, sqrt(2 / pi), ctx.dtype)))
        else:
            inner = p.erf(p.div(x, scalar(p, sqrt(2), ctx.dtype)))
        return p.mul(p.mul(x, scalar(p, 0.5, ctx.dtype)), p.add(inner, scalar(p, 1, ctx.dtype)))

    return step


@decomposition("Rescale")
@Prepared
def rescale(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return x / count + epsilon in the shape of x: the finish of a mean whose sum was taken across ranks."""
    count, epsilon = ctx.attrs.whole("count"), ctx.attrs.rounded("epsilon")

    def step(x: Tensor) -> Tensor:
        mean = p.div(x, scalar(p, count, ctx.dtype))
        return p.add(mean, scalar(p, epsilon, ctx.dtype)) if epsilon else mean

    return step
