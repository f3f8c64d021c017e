"""Element by element, with NumPy's broadcasting.

Swish(x) = x * sigmoid(alpha * x)
Gelu(x) = x/2 * (1 + erf(x / sqrt 2)), or with tanh(sqrt(2/pi) * (x + 0.044715 x^3)) for approximate="tanh"
"""

from __future__ import annotations

from math import pi, sqrt

from unitp.engine.operators.decompositions import decomposition, scalar
from unitp.engine.overrides import Implementation, Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.rank import Context

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
    return x


@decomposition("Cast")
def cast(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    return p.cast(x, ctx.dtype)


@decomposition("Div")
def div(p: Primitives, ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """Integers are divided towards zero (in float64: exact below 2^53)."""
    if not ctx.dtype.startswith("int"):
        return p.div(x, y)
    return p.cast(p.div(p.cast(x, "float64"), p.cast(y, "float64")), ctx.dtype)


@decomposition("Pow")
def power(p: Primitives, ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """In the dtype of the base; an integer base under a float exponent is raised in float64 and truncated."""
    if p.dtype(x) == p.dtype(y):
        return p.pow(x, y)
    if not ctx.dtype.startswith("int"):
        return p.pow(x, p.cast(y, ctx.dtype))
    return p.cast(p.pow(p.cast(x, "float64"), p.cast(y, "float64")), ctx.dtype)


@decomposition("Relu")
def relu(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    return p.maximum(x, scalar(p, 0, ctx.dtype))


@decomposition("Swish")
def swish(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.attrs.rounded("alpha")
    return p.mul(x, p.sigmoid(x if alpha == 1.0 else p.mul(x, scalar(p, alpha, ctx.dtype))))


@decomposition("Gelu")
def gelu(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    if ctx.attrs.word("approximate") == "tanh":
        cube = p.mul(p.mul(p.mul(x, x), x), scalar(p, 0.044715, ctx.dtype))
        inner = p.tanh(p.mul(p.add(x, cube), scalar(p, sqrt(2 / pi), ctx.dtype)))
    else:
        inner = p.erf(p.div(x, scalar(p, sqrt(2), ctx.dtype)))
    return p.mul(p.mul(x, scalar(p, 0.5, ctx.dtype)), p.add(inner, scalar(p, 1, ctx.dtype)))


@decomposition("Rescale")
def rescale(p: Primitives, ctx: Context, x: Tensor) -> Tensor:
    """The finish of a mean whose sum was taken across ranks: x / count + epsilon."""
    mean = p.div(x, scalar(p, ctx.attrs.whole("count"), ctx.dtype))
    epsilon = ctx.attrs.rounded("epsilon")
    return p.add(mean, scalar(p, epsilon, ctx.dtype)) if epsilon else mean
