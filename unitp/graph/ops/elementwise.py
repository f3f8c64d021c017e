"""Elementwise operators with NumPy's broadcasting: factor `d<i>` is dim i of the output."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.places import reshaped
from unitp.graph.ops.records import Family, Operator
from unitp.graph.ops.rule import Factor, Operand, Rule, Shape, Term
from unitp.graph.values import DTYPES, Dim

register = Family()
"""The operators of this module."""


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the common shape of `shapes`. A symbol matches only itself and 1. Raises GraphError if there is no common shape."""
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out: list[Dim] = []
    for dims in zip(*padded, strict=True):
        sizes = {d for d in dims if d != 1}
        if len(sizes) > 1:
            raise GraphError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def aligned(shape: Shape, out: Shape) -> Operand:
    """Return the terms of an operand of a broadcasting operator. A dim of size 1 that is broadcast has no factor.

    A dim that is 1 in all operands has one: it may be a symbol in the graph, where it is split, and 1 in this call.
    """
    shift = len(out) - len(shape)
    return tuple(Term((f"d{i + shift}",)) if size == out[i + shift] else Term() for i, size in enumerate(shape))


def elementwise(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    shapes = [s for s in inputs if s is not None]
    out = broadcast(shapes)
    factors = {f"d{i}": Factor(size) for i, size in enumerate(out)}
    return Rule(factors, tuple(aligned(s, out) for s in shapes), (aligned(out, out),))


def _to_bool(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    return ("bool",)


def _cast(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    to = attrs.get("to")
    if to not in DTYPES:
        raise GraphError(f"attribute to is {to!r} but must be one of {', '.join(DTYPES)}")
    return (str(to),)


def _second(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    return (dtypes[1],)


for _name in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
    register(Operator(_name, elementwise, arity=(2, 2)))
register(Operator("Pow", elementwise, arity=(2, 2), flops=20))
for _name in ("Equal", "Less", "And"):
    register(Operator(_name, elementwise, arity=(2, 2), dtypes=_to_bool))
for _name in ("Neg", "Abs", "Relu", "Not"):
    register(Operator(_name, elementwise))
for _name in ("Exp", "Log", "Sqrt", "Tanh", "Sigmoid", "Erf"):
    register(Operator(_name, elementwise, flops=10))
register(Operator("Swish", elementwise, flops=10, defaults={"alpha": 1.0}))
register(Operator("Gelu", elementwise, flops=10, defaults={"approximate": "none"}))
register(Operator("Identity", elementwise, kind="data movement", view="always", traffic="none", moved=reshaped))
register(Operator("Cast", elementwise, dtypes=_cast, kind="data movement", view="maybe", moved=reshaped))
register(Operator("Where", elementwise, arity=(3, 3), dtypes=_second))
# x / count + epsilon: the finish of a mean whose sum was taken across ranks
register(Operator("Rescale", elementwise, kind="norm", internal=True))
