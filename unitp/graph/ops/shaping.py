"""Operators that move data and compute nothing. Reshape's factors are derived from its two shapes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.places import Array, reshaped
from unitp.graph.ops.records import Family, Operator
from unitp.graph.ops.rule import Factor, Operand, Rule, Shape, Term
from unitp.graph.values import Dim

register = Family()
"""The operators of this module."""

Group = tuple[list[int], list[int]]


def reshape(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b (h e) -> b h e`: dims are matched from the left until products agree, and each group is refined to common factors.

    Raises GraphError for a size below 1, and if the products of all sizes differ.
    """
    source, target = tuple(inputs[0] or ()), attrs.sizes("shape")
    if any(isinstance(size, int) and size < 1 for size in (*source, *target)):
        raise GraphError(f"cannot reshape {source} to {target}")
    factors: dict[str, Factor] = {}
    left: list[Term] = [Term()] * len(source)
    right: list[Term] = [Term()] * len(target)
    for number, group in enumerate(_groups(source, target)):
        _refine(number, group, source, target, factors, left, right)
    return Rule(factors, (tuple(left),), (tuple(right),))


def _groups(source: Shape, target: Shape) -> list[Group]:
    """Return runs of dims on both sides with equal products; a symbol only matches itself."""
    groups: list[Group] = []
    i = j = 0
    while i < len(source) or j < len(target):
        a, b = [i] if i < len(source) else [], [j] if j < len(target) else []
        i, j = i + len(a), j + len(b)
        while _product(source, a) != _product(target, b):
            left, right = _product(source, a), _product(target, b)
            grow_left = isinstance(right, str) or (isinstance(left, int) and isinstance(right, int) and left < right)
            if grow_left and i < len(source):
                a, i = [*a, i], i + 1
            elif j < len(target):
                b, j = [*b, j], j + 1
            else:
                raise GraphError(f"cannot reshape {source} to {target}")
        groups.append((a, b))
    return groups


def _product(shape: Shape, dims: list[int]) -> Dim:
    symbols = [shape[d] for d in dims if isinstance(shape[d], str)]
    number = prod(int(shape[d]) for d in dims if not isinstance(shape[d], str))
    if not symbols:
        return number
    return "*".join([*sorted(map(str, symbols)), *([str(number)] if number != 1 else [])])


def _refine(
    number: int,
    group: Group,
    source: Shape,
    target: Shape,
    factors: dict[str, Factor],
    left: list[Term],
    right: list[Term],
) -> None:
    a, b = group
    if len(a) == 1 and len(b) == 1:
        name = f"g{number}"
        factors[name] = Factor(source[a[0]])
        left[a[0]] = right[b[0]] = Term((name,))
        return
    sizes_a, sizes_b = [source[d] for d in a], [target[d] for d in b]
    common = _common(sizes_a, sizes_b)
    if common is None:
        for side, dims, sizes in ((left, a, sizes_a), (right, b, sizes_b)):
            for place, (dim, size) in enumerate(zip(dims, sizes, strict=True)):
                name = f"g{number}{'l' if side is left else 'r'}{place}"
                factors[name] = Factor(size, "whole")
                side[dim] = Term((name,))
        return
    for place, size in enumerate(common):
        factors[f"g{number}_{place}"] = Factor(size)
    for side, dims, sizes in ((left, a, sizes_a), (right, b, sizes_b)):
        for dim, places in zip(dims, _assign(sizes, common), strict=True):
            side[dim] = Term(tuple(f"g{number}_{p}" for p in places))


def _common(a: list[Dim], b: list[Dim]) -> list[int] | None:
    """Return the common refinement of two factorisations of one number, major to minor, or None if there is none."""
    if any(isinstance(s, str) for s in (*a, *b)):
        return None
    edges = sorted({*_suffixes(a), *_suffixes(b)})
    if any(big % small for small, big in itertools.pairwise(edges)):
        return None
    return [big // small for small, big in itertools.pairwise(edges)][::-1]


def _suffixes(sizes: list[Dim]) -> list[int]:
    return [prod(int(s) for s in sizes[i:]) for i in range(len(sizes) + 1)]


def _assign(sizes: list[Dim], common: list[int]) -> list[list[int]]:
    out, at = [], 0
    for size in sizes:
        places, left = [], int(size)
        while left > 1:
            places.append(at)
            left //= common[at]
            at += 1
        out.append(places)
    return out


def permutation(attrs: Attributes, dims: int) -> tuple[int, ...]:
    """Return, for each dim of a transpose's output, the dim of the input."""
    return attrs.wholes("perm") if "perm" in attrs else tuple(reversed(range(dims)))


def transpose(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`a b -> b a`, for any number of dims in the order `perm`. Raises GraphError if `perm` does not name every dim once."""
    x = tuple(inputs[0] or ())
    perm = permutation(attrs, len(x))
    if sorted(perm) != list(range(len(x))):
        raise GraphError(f"Transpose of {len(x)} dims by {perm}")
    terms = [Term((f"d{i}",)) for i in range(len(x))]
    factors = {f"d{i}": Factor(size) for i, size in enumerate(x)}
    return Rule(factors, (tuple(terms),), (tuple(terms[p] for p in perm),))


def _fixed(shape: Shape, whole: set[int], sizes: Sequence[Dim], tag: str) -> tuple[dict[str, Factor], Operand]:
    """Return the factors of one operand whose dims in `whole` have factors of their own (named by `tag`), the others `d<i>`."""
    names = [f"{tag}{i}" if i in whole else f"d{i}" for i in range(len(shape))]
    factors = {
        n: Factor(s, "whole" if i in whole else "free") for i, (n, s) in enumerate(zip(names, sizes, strict=True))
    }
    return factors, tuple(Term((n,)) for n in names)


def concat(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Concat: the dim that is joined is whole, the others are free.

    Raises GraphError if other dims differ, or the joined one is symbolic.
    """
    shapes = [tuple(s or ()) for s in inputs]
    dim = attrs.dim(len(shapes[0]))
    if any(len(s) != len(shapes[0]) or any(s[i] != shapes[0][i] for i in range(len(s)) if i != dim) for s in shapes):
        raise GraphError(f"Concat of {', '.join(map(str, shapes))} along dim {dim}")
    if any(isinstance(s[dim], str) for s in shapes):
        raise GraphError("Concat along a symbolic dim")
    factors: dict[str, Factor] = {}
    operands = []
    for number, shape in enumerate(shapes):
        more, terms = _fixed(shape, {dim}, shape, f"x{number}_")
        factors |= more
        operands.append(terms)
    total = [sum(int(s[dim]) for s in shapes) if i == dim else size for i, size in enumerate(shapes[0])]
    more, out = _fixed(shapes[0], {dim}, total, "o")
    return Rule(factors | more, tuple(operands), (out,))


def split(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Split: the dim that is divided is whole, the others are free.

    Raises GraphError for other than two parts, and for parts that do not add up to the dim.
    """
    shape, sizes = tuple(inputs[0] or ()), attrs.wholes("split")
    dim = attrs.dim(len(shape))
    if len(sizes) != 2 or min(sizes) < 0 or sum(sizes) != shape[dim]:
        raise GraphError(
            f"Split of {shape} along dim {dim} into {sizes}: there must be two parts that add up to the dim"
        )
    factors, operand = _fixed(shape, {dim}, shape, "x")
    outs = []
    for number, part in enumerate(sizes):
        more, out = _fixed(shape, {dim}, [part if i == dim else s for i, s in enumerate(shape)], f"o{number}_")
        factors |= more
        outs.append(out)
    return Rule(factors, (operand,), tuple(outs))


def slice_(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Slice: sliced dims are whole, the others free. Bounds are numbers, or 0 and a symbol.

    Raises GraphError for bounds outside of a dim, and unless each axis is named once and has one start and one end.
    """
    shape = tuple(inputs[0] or ())
    axes, starts, ends = attrs.dims(len(shape)), attrs.wholes("starts"), attrs.sizes("ends")
    if not len(set(axes)) == len(axes) == len(starts) == len(ends):
        raise GraphError("Slice wants as many starts and ends as axes, each once")
    sizes = list(shape)
    for dim, a, b in zip(axes, starts, ends, strict=True):
        size, last = shape[dim], b if isinstance(b, int) else a + 1
        if not 0 <= a < last <= (size if isinstance(size, int) else last) or (a and isinstance(b, str)):
            raise GraphError(f"Slice {a}:{b} of dim {dim} with size {size}")
        sizes[dim] = b if isinstance(b, str) else b - a
    factors, operand = _fixed(shape, set(axes), shape, "x")
    more, out = _fixed(shape, set(axes), sizes, "o")
    return Rule(factors | more, (operand,), (out,))


def unsqueeze(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Unsqueeze: the dims of the input are free. Raises GraphError if a dim is added twice."""
    shape = tuple(inputs[0] or ())
    added = attrs.dims(len(shape) + len(attrs.wholes("axes")))
    if len(set(added)) < len(added):
        raise GraphError(f"Unsqueeze adds dims {added}, one of them twice")
    factors, operand = _fixed(shape, set(), shape, "x")
    rest = iter(operand)
    return Rule(
        factors, (operand,), (tuple(Term() if i in added else next(rest) for i in range(len(shape) + len(added))),)
    )


def squeeze(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Squeeze: the dims that remain are free. Raises GraphError if a dim that is removed has another size than 1."""
    shape = tuple(inputs[0] or ())
    gone = attrs.dims(len(shape))
    if any(shape[d] != 1 for d in gone):
        raise GraphError(f"Squeeze of dims {gone} of {shape}, which are not all 1")
    factors = {f"d{i}": Factor(size) for i, size in enumerate(shape) if i not in gone}
    operand = tuple(Term() if i in gone else Term((f"d{i}",)) for i in range(len(shape)))
    return Rule(factors, (operand,), (tuple(t for i, t in enumerate(operand) if i not in gone),))


def expand(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """Return the rule of Expand: all dims of the result are free; a dim of the input that is broadcast has no factor.

    Raises GraphError if the shape of the input does not broadcast to the target.
    """
    shape, target = tuple(inputs[0] or ()), attrs.sizes("shape")
    if len(shape) > len(target):
        raise GraphError(f"Expand of {shape} to {target}")
    shift = len(target) - len(shape)
    if any(s not in (1, target[i + shift]) for i, s in enumerate(shape)):
        raise GraphError(f"Expand of {shape} to {target}")
    factors, out = _fixed(target, set(), target, "o")
    return Rule(
        factors, (tuple(out[i + shift] if s == target[i + shift] else Term() for i, s in enumerate(shape)),), (out,)
    )


# what these operators make of arrays, for places that pass through them


def _transposed(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    return (inputs[0].transpose(permutation(attrs, inputs[0].ndim)),)


def _concatenated(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    return (np.concatenate(inputs, attrs.whole("axis")),)


def _parted(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    dim = attrs.dim(inputs[0].ndim)
    return tuple(np.split(inputs[0], [outputs[0][dim]], dim))


def _sliced(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    x = inputs[0]
    cut = [slice(None)] * x.ndim
    for dim, start in zip(attrs.dims(x.ndim), attrs.wholes("starts"), strict=True):
        cut[dim] = slice(start, start + outputs[0][dim])
    return (x[tuple(cut)],)


def _expanded(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    return (np.broadcast_to(inputs[0], outputs[0]),)


_MOVES: dict[str, Any] = {"kind": "data movement", "view": "maybe"}
_VIEWS: dict[str, Any] = {"kind": "data movement", "view": "always", "traffic": "none", "moved": reshaped}

register(Operator("Reshape", reshape, constants=("shape",), **_VIEWS))
register(Operator("Unsqueeze", unsqueeze, constants=("axes",), **_VIEWS))
register(Operator("Squeeze", squeeze, constants=("axes",), **_VIEWS))
register(
    Operator("Transpose", transpose, kind="data movement", view="always", permutation=permutation, moved=_transposed)
)
register(Operator("Concat", concat, arity=(1, 64), moved=_concatenated, **_MOVES))
register(Operator("Split", split, outputs=2, defaults={"axis": 0}, constants=("split",), moved=_parted, **_MOVES))
register(
    Operator("Slice", slice_, traffic="none", constants=("starts", "ends", "axes", "steps"), moved=_sliced, **_MOVES)
)
register(Operator("Expand", expand, constants=("shape",), moved=_expanded, **_MOVES))
