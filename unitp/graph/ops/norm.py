"""Normalisations and softmax. The dims they reduce but keep are *inner*: if split, they expand (`unitp.graph.ops.expansions`)."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.expansions import Nodes
from unitp.graph.ops.records import Family, Operator
from unitp.graph.ops.rule import Factor, Rule, Shape, Term
from unitp.graph.values import Attribute, Node

register = Family()
"""The operators of this module."""


def _along(attrs: Attributes, inputs: Sequence[Shape | None], parameters: int) -> Rule:
    x = tuple(inputs[0] or ())
    dim = attrs.dim(len(x))
    if parameters and dim != len(x) - 1:
        raise GraphError(f"normalising dims {dim} to {len(x) - 1} of {x}: only the last dim is known")
    factors = {f"d{i}": Factor(size, "inner" if i == dim else "free") for i, size in enumerate(x)}
    operand = tuple(Term((f"d{i}",)) for i in range(len(x)))
    for extra in inputs[1:]:
        if extra is not None and extra != (x[dim],):
            raise GraphError(f"the scale or bias has shape {extra} but must have ({x[dim]},)")
    rest = tuple(None if s is None else (operand[dim],) for s in inputs[1:])
    return Rule(factors, (operand, *rest), (operand,))


def softmax(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b v`, inner: v."""
    return _along(attrs, inputs, 0)


def normalization(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b s d, d, d -> b s d`, inner: d."""
    return _along(attrs, inputs, 1)


def _exponentials(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> tuple[Nodes, str, str, str]:
    """Add x - max x, its exponentials and their sum. Return the nodes and the names of the three."""
    dim, add = attrs.dim(len(shape)), Nodes(node)
    shifted = add("Sub", node.inputs[0], add("ReduceMax", node.inputs[0], axes=(dim,), keepdims=1))
    exponentials = add("Exp", shifted)
    return add, shifted, exponentials, add("ReduceSum", exponentials, axes=(dim,), keepdims=1)


def _softmax(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    add, _, exponentials, total = _exponentials(node, attrs, shape)
    add("Div", exponentials, total)
    return add.end()


def _log_softmax(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    add, shifted, _, total = _exponentials(node, attrs, shape)
    add("Sub", shifted, add("Log", total))
    return add.end()


def _rms_normalization(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    x, scale = node.inputs
    dim, add = len(shape) - 1, Nodes(node)
    mean = add.mean(add("Mul", x, x), (dim,), shape[dim], attrs.real("epsilon"))
    add("Mul", add("Div", x, add("Sqrt", mean)), scale)
    return add.end()


def _layer_normalization(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    x, scale, *bias = node.inputs
    dim, add = len(shape) - 1, Nodes(node)
    centred = add("Sub", x, add.mean(x, (dim,), shape[dim]))
    variance = add.mean(add("Mul", centred, centred), (dim,), shape[dim], attrs.real("epsilon"))
    scaled = add("Mul", add("Div", centred, add("Sqrt", variance)), scale)
    if bias and bias[0]:
        add("Add", scaled, bias[0])
    return add.end()


LAST: dict[str, Attribute] = {"axis": -1}

register(Operator("Softmax", softmax, defaults=LAST, kind="norm", flops=15, expansion=_softmax))
register(Operator("LogSoftmax", softmax, defaults=LAST, kind="norm", flops=15, expansion=_log_softmax))
register(
    Operator(
        "RMSNormalization",
        normalization,
        defaults={**LAST, "epsilon": 1e-5},
        arity=(2, 2),
        kind="norm",
        flops=5,
        expansion=_rms_normalization,
    )
)
register(
    Operator(
        "LayerNormalization",
        normalization,
        defaults={**LAST, "epsilon": 1e-5},
        arity=(2, 3),
        kind="norm",
        flops=8,
        expansion=_layer_normalization,
    )
)
