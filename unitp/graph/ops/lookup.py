"""Look-ups of rows by index. If the looked-up dim is split, each rank gives the rows it holds and zeros elsewhere (*mask*)."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.places import Place, index
from unitp.graph.ops.records import Family, Operator
from unitp.graph.ops.rule import Factor, Rule, Shape, Term, parse
from unitp.graph.values import STORED

register = Family()
"""The operators of this module."""


def gather(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`v d, b s -> b s d`, mask: v, for any number of dims."""
    data, ids = (tuple(s or ()) for s in inputs)
    dim = attrs.dim(len(data))
    names = ["v" if i == dim else f"d{i}" for i in range(len(data))]
    places = [f"i{i}" for i in range(len(ids))]
    factors = {n: Factor(s, "mask" if n == "v" else "free") for n, s in zip(names, data, strict=True)}
    factors |= {n: Factor(s) for n, s in zip(places, ids, strict=True)}
    out = [*names[:dim], *places, *names[dim + 1 :]]
    data_terms, id_terms, out_terms = (tuple(Term((n,)) for n in group) for group in (names, places, out))
    return Rule(factors, (data_terms, id_terms), (out_terms,))


def gather_nd(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b s d, b n 1 -> b n d`, whole: s (one index per place, after one batch dim).

    Raises GraphError for any other form of GatherND.
    """
    if attrs.whole("batch_dims") != 1 or len(inputs[0] or ()) != 3 or (inputs[1] or ())[-1:] != (1,):
        raise GraphError("GatherND is known with batch_dims=1, data of three dims and indices of shape (batch, n, 1)")
    return parse("b s d, b n . -> b n d", inputs, whole="s")


def gather_elements(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b v, b w -> b w`, whole: v (the dim along which elements are looked up).

    Raises GraphError if the shapes differ in any other dim.
    """
    data, ids = (tuple(s or ()) for s in inputs)
    dim = attrs.dim(len(data))
    if len(data) != len(ids) or any(a != b for i, (a, b) in enumerate(zip(data, ids, strict=False)) if i != dim):
        raise GraphError(f"GatherElements of {data} at {ids}: all dims but dim {dim} must agree")
    names = [f"d{i}" for i in range(len(ids))]
    factors = {n: Factor(s) for n, s in zip(names, ids, strict=True)} | {"v": Factor(data[dim], "whole")}
    out = tuple(Term((n,)) for n in names)
    source = tuple(Term(("v",)) if i == dim else t for i, t in enumerate(out))
    return Rule(factors, (source, out), (out,))


def _along(attrs: Attributes, inputs: Sequence[Shape | None]) -> tuple[Place, ...]:
    data = inputs[0] or ()
    return (index(1, data[attrs.dim(len(data))]),)


def _after_batch(attrs: Attributes, inputs: Sequence[Shape | None]) -> tuple[Place, ...]:
    return (index(1, (inputs[0] or ())[1]),)


def _widened(attrs: Attributes, dtypes: Sequence[str]) -> tuple[str, ...]:
    """Return the dtype of looked-up rows: that of the table, but float32 for a table stored in 16 bits."""
    return ("float32" if dtypes[0] in STORED else dtypes[0],)


register(
    Operator(
        "Gather",
        gather,
        defaults={"axis": 0},
        arity=(2, 2),
        dtypes=_widened,
        kind="look-up",
        traffic="output",
        stored=0,
        places=_along,
    )
)
register(
    Operator(
        "GatherND",
        gather_nd,
        defaults={"batch_dims": 0},
        arity=(2, 2),
        kind="look-up",
        traffic="output",
        places=_after_batch,
    )
)
register(
    Operator(
        "GatherElements",
        gather_elements,
        defaults={"axis": 0},
        arity=(2, 2),
        kind="look-up",
        traffic="output",
        places=_along,
    )
)
