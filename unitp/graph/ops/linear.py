"""Contractions: MatMul with broadcast batch dims, Gemm with its bias added once, and Einsum of two operands."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.elementwise import aligned, broadcast
from unitp.graph.ops.records import Family, Operator
from unitp.graph.ops.rule import Factor, Rule, Shape, Term, parse

register = Family()
"""The operators of this module."""


def matmul(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b m k, b k n -> b m n`, sum: k. Here b stands for the broadcast batch dims d0, d1, ...

    Raises GraphError for an operand with fewer than two dims, and for shapes that do not multiply or broadcast.
    """
    x, y = (tuple(s or ()) for s in inputs)
    if len(x) < 2 or len(y) < 2:
        raise GraphError(f"MatMul wants matrices, got shapes {x} and {y}")
    if x[-1] != y[-2]:
        raise GraphError(f"MatMul of {x} and {y}: {x[-1]} columns meet {y[-2]} rows")
    batch = broadcast([x[:-2], y[:-2]])
    factors = {f"d{i}": Factor(size) for i, size in enumerate(batch)}
    factors |= {"m": Factor(x[-2]), "k": Factor(x[-1], "sum"), "n": Factor(y[-1])}
    m, k, n = Term(("m",)), Term(("k",)), Term(("n",))
    left, right = (*aligned(x[:-2], batch), m, k), (*aligned(y[:-2], batch), k, n)
    return Rule(factors, (left, right), ((*aligned(batch, batch), m, n),))


def gemm(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`m k, k n, m n -> m n`, sum: k, once: the bias (whose dims may be absent or of size 1).

    Raises GraphError for operands that are not matrices that multiply, and for a bias that does not broadcast to the result.
    """
    a = "k m" if attrs.truth("transA") else "m k"
    b = "n k" if attrs.truth("transB") else "k n"
    rule = parse(f"{a}, {b} -> m n", inputs[:2], sum="k")
    if len(inputs) < 3 or inputs[2] is None:
        return rule
    bias, out = inputs[2], rule.output_shapes()[0]
    if broadcast([bias, out]) != out:
        raise GraphError(f"Gemm's bias {bias} does not broadcast to {out}")
    names = {"d0": "m", "d1": "n"}
    terms = tuple(Term(tuple(names[f] for f in term.factors)) for term in aligned(bias, out))
    return Rule(rule.factors, (*rule.inputs, terms), rule.outputs, once=(2,))


def einsum_terms(attrs: Attributes) -> tuple[str, str, str]:
    """Return the letters of both operands and of the output. Raises GraphError if this is not a contraction of two operands."""
    equation = attrs.word("equation").replace(" ", "")
    left, arrow, out = equation.partition("->")
    x, comma, y = left.partition(",")
    summed = (set(x) | set(y)) - set(out)
    letters = all(not term or (term.isalpha() and len(set(term)) == len(term)) for term in (x, y, out))
    if not (arrow and comma and letters and set(out) <= set(x) | set(y) and summed <= set(x) & set(y)):
        raise GraphError(f'Einsum "{equation}" is not supported: it must have two operands, as in "bsd,efd->bsef"')
    return x, y, out


def einsum(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Einsum: each letter is a factor, and a letter of both operands that the output lacks is summed."""
    x, y, out = einsum_terms(attrs)
    line = f"{' '.join(x)}, {' '.join(y)} -> {' '.join(out)}"
    return parse(line, inputs, sum=" ".join(sorted((set(x) | set(y)) - set(out))))


register(Operator("MatMul", matmul, arity=(2, 2), kind="matmul", flops=2, packed=1, stored=1))
register(
    Operator(
        "Gemm",
        gemm,
        defaults={"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0},
        arity=(2, 3),
        kind="matmul",
        flops=2,
    )
)
register(Operator("Einsum", einsum, arity=(2, 2), kind="matmul", flops=2))
