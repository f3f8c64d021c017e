"""Sums, maxima and means over dims, and top-k and arg-max along one dim."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.expansions import Nodes
from unitp.graph.ops.places import SelectedFunction, Span
from unitp.graph.ops.records import Family, Operator, RuleFunction
from unitp.graph.ops.rule import Factor, Kind, Rule, Shape, Term
from unitp.graph.values import Attribute, Dim, Node

register = Family()
"""The operators of this module."""


def _reduce(kind: Kind) -> RuleFunction:
    def rule(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
        x = tuple(inputs[0] or ())
        gone = attrs.dims(len(x))
        factors = {f"d{i}": Factor(size, kind if i in gone else "free") for i, size in enumerate(x)}
        terms = tuple(Term((f"d{i}",)) for i in range(len(x)))
        kept = tuple(
            Term() if i in gone else t for i, t in enumerate(terms) if attrs.truth("keepdims") or i not in gone
        )
        return Rule(factors, (terms,), (kept,))

    return rule


def _select(k: Dim, attrs: Attributes, shape: Shape, keep: bool, outputs: int) -> Rule:
    dim = attrs.dim(len(shape))
    names = ["v" if i == dim else f"d{i}" for i in range(len(shape))]
    factors = {n: Factor(s, "inner" if n == "v" else "free") for n, s in zip(names, shape, strict=True)}
    factors["c"] = Factor(k, "whole")
    out = tuple(Term(("c" if i == dim else n,)) for i, n in enumerate(names) if keep or i != dim)
    return Rule(factors, (tuple(Term((n,)) for n in names),), (out,) * outputs)


def topk(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b c, b c`, inner: v, whole: c. Of equal values the lowest index comes first.

    Raises GraphError for a k that is not a number or a symbol, is below 1, or exceeds the size of v.
    """
    shape = tuple(inputs[0] or ())
    k = attrs.get("k")
    size = shape[attrs.dim(len(shape))]
    if isinstance(k, int) and isinstance(size, int) and not 1 <= k <= size:
        raise GraphError(f"TopK of {k} among {size}")
    if not isinstance(k, int | str):
        raise GraphError(f"TopK's k must be a number or a symbol, got {k!r}")
    return _select(k, attrs, shape, True, 2)


def argmax(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b c`, inner: v, with c of size 1 (or gone)."""
    return _select(1, attrs, tuple(inputs[0] or ()), attrs.truth("keepdims"), 1)


def topk_part(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b c, b c`: the candidates of each part of v, with global indices. c has min(k, part) rows per part.

    Internal: v and c are split alike, so that each rank's candidates follow from its own part alone. Raises GraphError if
    the output has another number of dims than the input.
    """
    shape = tuple(inputs[0] or ())
    dim = attrs.dim(len(shape))
    if outputs and len(outputs[0]) != len(shape):
        raise GraphError(f"TopKPart of {shape} leaves {outputs[0]}")
    rule = _select(outputs[0][dim] if outputs else 1, attrs, shape, True, 2)
    return Rule({n: Factor(f.size, "free") for n, f in rule.factors.items()}, rule.inputs, rule.outputs)


def _index(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    return ("int64",)


def _value_and_index(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    return (dtypes[0], "int64")


def _selected(output: int) -> SelectedFunction:
    """Return a `SelectedFunction` for output number `output`, which has places along the reduced dim of the input."""

    def selected(attrs: Attributes, inputs: Sequence[Shape | None]) -> dict[int, Span]:
        shape = inputs[0] or ()
        return {output: (0, int(shape[attrs.dim(len(shape))]) - 1)}

    return selected


def _reduce_mean(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    dims, add = attrs.dims(len(shape)), Nodes(node)
    mean = add.mean(node.inputs[0], dims, prod(shape[dim] for dim in dims))
    if not attrs.truth("keepdims"):
        add("Squeeze", mean, axes=dims)
    return add.end()


def _best(node: Node, k: int, dim: int) -> list[Node]:
    """Return the nodes for the k largest along a dim: the candidates of each part, the best of them, and their places in the whole.

    Between them, all candidates are gathered. Their number is known once the split is known.
    """
    values = node.outputs[0] if len(node.outputs) == 2 else f"{node.name}:best.0"
    part, places, best = f"{node.name}:part", f"{node.name}:part.1", f"{node.name}:best"
    return [
        Node("TopKPart", node.inputs, (part, places), {"k": k, "axis": dim}),
        Node("TopK", (part,), (values, best), {"k": k, "axis": dim}),
        Node("GatherElements", (places, best), (node.outputs[-1],), {"axis": dim}),
    ]


def _top_k(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    return _best(node, attrs.whole("k"), attrs.dim(len(shape)))


def _arg_max(node: Node, attrs: Attributes, shape: tuple[int, ...]) -> list[Node]:
    dim = attrs.dim(len(shape))
    *parts, found = _best(node, 1, dim)
    if attrs.truth("keepdims"):
        return [*parts, found]
    ids = f"{node.name}:best.ids"
    return [
        *parts,
        Node(found.op, found.inputs, (ids,), found.attrs),
        Node("Squeeze", (ids,), node.outputs, {"axes": (dim,)}),
    ]


KEPT: dict[str, Attribute] = {"keepdims": 1}

register(Operator("ReduceSum", _reduce("sum"), kind="reduction", defaults=KEPT, constants=("axes",)))
register(Operator("ReduceMax", _reduce("max"), kind="reduction", defaults=KEPT, constants=("axes",)))
register(
    Operator(
        "ReduceMean", _reduce("inner"), kind="reduction", defaults=KEPT, constants=("axes",), expansion=_reduce_mean
    )
)
register(
    Operator(
        "TopK",
        topk,
        outputs=2,
        dtypes=_value_and_index,
        kind="selection",
        flops=4,
        defaults={"axis": -1},
        constants=("k",),
        expansion=_top_k,
        selected=_selected(1),
    )
)
register(
    Operator(
        "ArgMax",
        argmax,
        defaults={"axis": 0, "keepdims": 1},
        dtypes=_index,
        kind="selection",
        expansion=_arg_max,
        selected=_selected(0),
    )
)
register(
    Operator(
        "TopKPart",
        topk_part,
        outputs=2,
        dtypes=_value_and_index,
        kind="selection",
        flops=4,
        candidates=True,
        internal=True,
        selected=_selected(1),
    )
)
