"""Normalisations and softmax: the dims they reduce but keep are *inner*; split, they expand (`unitp.graph.ops.expansions`)."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.records import Attrs, Operator, register, whole
from unitp.graph.ops.rule import Factor, Rule, Shape, Term


def positive(axis: int, rank: int) -> int:
    """A dim counted from the end, counted from the front."""
    if not -rank <= axis < rank:
        raise GraphError(f"dim {axis} of a tensor with {rank} dims")
    return axis % rank


def _along(attrs: Attrs, inputs: Sequence[Shape | None], parameters: int) -> Rule:
    x = tuple(inputs[0] or ())
    dim = positive(whole(attrs, "axis", -1), len(x))
    if parameters and dim != len(x) - 1:
        raise GraphError(f"normalising dims {dim} to {len(x) - 1} of {x}: only the last dim is known")
    factors = {f"d{i}": Factor(size, "inner" if i == dim else "free") for i, size in enumerate(x)}
    operand = tuple(Term((f"d{i}",)) for i in range(len(x)))
    for extra in inputs[1:]:
        if extra is not None and extra != (x[dim],):
            raise GraphError(f"the scale or bias has shape {extra}, wanted ({x[dim]},)")
    rest = tuple(None if s is None else (operand[dim],) for s in inputs[1:])
    return Rule(factors, (operand, *rest), (operand,))


def softmax(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b v`, inner: v."""
    return _along(attrs, inputs, 0)


def normalization(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b s d, d, d -> b s d`, inner: d."""
    return _along(attrs, inputs, 1)


register(Operator("Softmax", softmax, flops=15))
register(Operator("LogSoftmax", softmax, flops=15))
register(Operator("RMSNormalization", normalization, arity=(2, 2), flops=5))
register(Operator("LayerNormalization", normalization, arity=(2, 3), flops=8))
