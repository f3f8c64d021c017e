"""Sums, maxima and means over dims; top-k and arg-max along one."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.graph import Dim
from unitp.graph.ops.norm import positive
from unitp.graph.ops.places import SelectedFunction, Span
from unitp.graph.ops.records import Attrs, Operator, RuleFunction, register, whole, wholes
from unitp.graph.ops.rule import Factor, Kind, Rule, Shape, Term


def dims_of(attrs: Attrs, rank: int, key: str = "axes") -> tuple[int, ...]:
    """The dims that an attribute names, counted from the front."""
    return tuple(positive(axis, rank) for axis in wholes(attrs, key))


def _reduce(kind: Kind) -> RuleFunction:
    def rule(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
        x = tuple(inputs[0] or ())
        gone = dims_of(attrs, len(x))
        factors = {f"d{i}": Factor(size, kind if i in gone else "free") for i, size in enumerate(x)}
        terms = tuple(Term((f"d{i}",)) for i in range(len(x)))
        kept = tuple(
            Term() if i in gone else t for i, t in enumerate(terms) if attrs.get("keepdims", 1) or i not in gone
        )
        return Rule(factors, (terms,), (kept,))

    return rule


def _select(k: Dim, attrs: Attrs, shape: Shape, keep: bool, outputs: int) -> Rule:
    dim = positive(whole(attrs, "axis", -1), len(shape))
    names = ["v" if i == dim else f"d{i}" for i in range(len(shape))]
    factors = {n: Factor(s, "inner" if n == "v" else "free") for n, s in zip(names, shape, strict=True)}
    factors["c"] = Factor(k, "whole")
    out = tuple(Term(("c" if i == dim else n,)) for i, n in enumerate(names) if keep or i != dim)
    return Rule(factors, (tuple(Term((n,)) for n in names),), (out,) * outputs)


def topk(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b c, b c`, inner: v, whole: c. Of equal values the lowest index comes first."""
    shape = tuple(inputs[0] or ())
    k = attrs.get("k")
    size = shape[positive(whole(attrs, "axis", -1), len(shape))]
    if isinstance(k, int) and isinstance(size, int) and not 1 <= k <= size:
        raise GraphError(f"TopK of {k} among {size}")
    if not isinstance(k, int | str):
        raise GraphError(f"TopK's k must be a number or a symbol, got {k!r}")
    return _select(k, attrs, shape, True, 2)


def argmax(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v -> b c`, inner: v, with c of size 1 (or gone)."""
    return _select(1, attrs, tuple(inputs[0] or ()), bool(attrs.get("keepdims", 1)), 1)


def topk_part(attrs: Attrs, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """The candidates of each part of v, with indices in the whole: `b v -> b c, b c`; c has min(k, part) rows per part.

    Internal: both v and c are split alike, so that each rank's candidates follow from its own part alone.
    """
    shape = tuple(inputs[0] or ())
    dim = positive(whole(attrs, "axis", -1), len(shape))
    if outputs and len(outputs[0]) != len(shape):
        raise GraphError(f"TopKPart of {shape} leaves {outputs[0]}")
    rule = _select(outputs[0][dim] if outputs else 1, attrs, shape, True, 2)
    return Rule({n: Factor(f.size, "free") for n, f in rule.factors.items()}, rule.inputs, rule.outputs)


def _index(attrs: Attrs, dtypes: Sequence[str]) -> tuple[str, ...]:
    return ("int64",)


def _value_and_index(attrs: Attrs, dtypes: Sequence[str]) -> tuple[str, ...]:
    return (dtypes[0], "int64")


def _selected(output: int) -> SelectedFunction:
    """Output number `output` holds places along the dim of the input."""

    def selected(attrs: Attrs, inputs: Sequence[Shape | None]) -> dict[int, Span]:
        shape = inputs[0] or ()
        return {output: (0, int(shape[positive(whole(attrs, "axis", -1), len(shape))]) - 1)}

    return selected


register(Operator("ReduceSum", _reduce("sum")))
register(Operator("ReduceMax", _reduce("max")))
register(Operator("ReduceMean", _reduce("inner")))
register(Operator("TopK", topk, outputs=2, dtypes=_value_and_index, flops=4, selected=_selected(1)))
register(Operator("ArgMax", argmax, dtypes=_index, selected=_selected(0)))
register(
    Operator("TopKPart", topk_part, outputs=2, dtypes=_value_and_index, flops=4, internal=True, selected=_selected(1))
)
