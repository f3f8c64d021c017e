"""Factor rules: one line per operator says which dims belong together. All legal splits and layouts follow from it.

    parse("b m k, b k n -> b m n", shapes, sum="k")        a contraction: splitting k leaves a partial sum
    parse("b h s e, b h/r t e -> b h s e", shapes, whole="t", ratio=3)

A term maps a factor's interval to a dim's interval: `n` as it is; `(h e)` scaled by the minor factors (only the major
one may be split); `h/r` the groups that these heads touch, [floor(a/r), ceil(b/r)); `.` no factor (a dim of size 1 that is
broadcast, or one that never splits). Kinds of factor:

    free     splitting it splits the outputs that have it
    sum      contracted: outputs are partial sums        max      reduced by max: outputs are partial maxima
    mask     looked up: rows that a rank does not hold count as zero, outputs are partial sums
    inner    reduced but kept: `expansions` gives local part, collective and finish
    whole    never split

An operand marked *once* (a bias) is required as a partial sum if a sum factor is split, so that it is added once. After
Shardy's `op_sharding_rule`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import msgspec

from unitp.errors import GraphError
from unitp.graph.values import Dim
from unitp.layout import Interval, Layout, Reduction, Split

Kind = Literal["free", "sum", "max", "mask", "inner", "whole"]
Shape = tuple[Dim, ...]


class Factor(msgspec.Struct, frozen=True):
    size: Dim
    kind: Kind = "free"


class Term(msgspec.Struct, frozen=True, array_like=True):
    """The factors of a dim, major to minor, and the ratio r of `h/r`."""

    factors: tuple[str, ...] = ()
    ratio: int = 1


Operand = tuple[Term, ...]


class Rule(msgspec.Struct, frozen=True):
    """A line solved for given shapes. `inputs` has None for an absent optional input."""

    factors: dict[str, Factor]
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    once: tuple[int, ...] = ()

    def splittable(self, name: str) -> bool:
        """Say whether `name` may be split: not whole, more than one row, and the major factor wherever it appears."""
        if self.factors[name].kind == "whole" or self.factors[name].size == 1:
            return False
        terms = [term for operand in (*self.inputs, *self.outputs) if operand for term in operand]
        return all(name not in term.factors or term.factors[0] == name for term in terms)

    def minor(self, term: Term) -> int:
        """Return the number of rows of the dim that one row of the term's major factor spans."""
        return prod(int(self.factors[f].size) for f in term.factors[1:])

    def output_shapes(self) -> list[Shape]:
        return [tuple(_size(term, self.factors) for term in operand) for operand in self.outputs]


def _size(term: Term, factors: Mapping[str, Factor]) -> Dim:
    sizes = [factors[f].size for f in term.factors]
    symbols = [s for s in sizes if isinstance(s, str)]
    if symbols and prod(s for s in sizes if isinstance(s, int)) == 1 and len(symbols) == 1:
        return symbols[0]
    if symbols:
        raise GraphError(f"a dim cannot be the product of {sizes}: give its size as a number")
    n = prod(int(s) for s in sizes)
    return -(-n // term.ratio)


_TERM = re.compile(r"\(([^)]*)\)|(\S+)")


def parse_terms(text: str, ratio: int = 1) -> Operand:
    """Return the terms of an operand: three for `b h/r (t e)`."""
    terms = []
    for group, word in _TERM.findall(text):
        name, _, over = word.partition("/")
        terms.append(
            Term(tuple(group.split())) if group else Term() if name == "." else Term((name,), ratio if over else 1)
        )
    return tuple(terms)


def parse(
    line: str,
    shapes: Sequence[Shape | None],
    *,
    sizes: Mapping[str, Dim] | None = None,
    ratio: int = 1,
    once: tuple[int, ...] = (),
    **kinds: str,
) -> Rule:
    """Solve `line` for the input `shapes`. `sizes` gives sizes that shapes do not; `sum="k"`, `whole="t e"` set kinds of factors.

    Absent inputs (None) keep their position. Raises GraphError if shapes contradict the line.
    """
    left, _, right = line.partition("->")
    texts = [part.strip() for part in left.split(",")]
    operands = [parse_terms(text, ratio) for text in texts]
    kind_of: dict[str, Kind] = {f: kind for kind, names in kinds.items() for f in names.split()}  # type: ignore[misc]
    found: dict[str, Dim] = dict(sizes or {})
    for number, (operand, shape) in enumerate(zip(operands, shapes, strict=False)):
        if shape is not None:
            _solve(line, number, operand, shape, found)
    outputs = tuple(parse_terms(part, ratio) for part in right.split(","))
    inputs = tuple(o if s is not None else None for o, s in zip(operands, shapes, strict=False))
    used = {f for o in (*inputs, *outputs) if o for term in o for f in term.factors}
    if missing := used - set(found):
        raise GraphError(f'the rule "{line}" does not tell the size of {", ".join(sorted(missing))}')
    factors = {f: Factor(found[f], kind_of.get(f, "free")) for f in found if f in used}
    return Rule(factors, inputs, outputs, once)


def _solve(line: str, number: int, operand: Operand, shape: Shape, found: dict[str, Dim]) -> None:
    if len(operand) != len(shape):
        raise GraphError(f'input {number} has {len(shape)} dims, the rule "{line}" wants {len(operand)}')
    for term, size in zip(operand, shape, strict=True):
        if term.factors and len(term.factors) == 1 and term.ratio == 1:
            name = term.factors[0]
            if found.setdefault(name, size) != size:
                raise GraphError(f'{name} is {found[name]} and {size} at once (input {number} of "{line}")')


Splits = Mapping[str, Split]


def term_split(rule: Rule, term: Term, splits: Splits) -> Split | None:
    """Return the split of a dim that follows from the split of its major factor."""
    split = splits.get(term.factors[0]) if term.factors else None
    if split is None or split.open or (len(term.factors) == 1 and term.ratio == 1):
        return split
    if term.ratio > 1:
        return Split(split.axes, tuple(_touched(i, term.ratio) for i in split.intervals))
    scale = rule.minor(term)
    return Split(split.axes, tuple((a * scale, b * scale) for a, b in split.intervals))


def _touched(interval: Interval, ratio: int) -> Interval:
    a, b = interval
    return (a // ratio, -(-b // ratio) if b > a else a // ratio)


def factor_split(rule: Rule, term: Term, split: Split) -> Split | None:
    """Return the split of a term's major factor that gives its dim this `split`, or None if there is none."""
    if not term.factors:
        return None
    if split.open:
        return split if len(term.factors) == 1 and term.ratio == 1 else None
    if term.ratio > 1:
        if split.overlaps:
            return None
        size = int(rule.factors[term.factors[0]].size)
        return Split(
            split.axes, tuple((min(a * term.ratio, size), min(b * term.ratio, size)) for a, b in split.intervals)
        )
    scale = rule.minor(term)
    if any(edge % scale for interval in split.intervals for edge in interval):
        return None
    return Split(split.axes, tuple((a // scale, b // scale) for a, b in split.intervals))


def layouts(rule: Rule, splits: Splits) -> tuple[tuple[Layout | None, ...], tuple[Layout, ...]]:
    """Return the required layouts of an operator's inputs and the produced layouts of its outputs, for these splits of its factors."""

    def dims(operand: Operand) -> tuple[Split | None, ...]:
        return tuple(term_split(rule, term, splits) for term in operand)

    partial, reduction = _partial(rule, splits)
    inputs = tuple(
        None if operand is None else Layout(dims(operand), partial if number in rule.once else ())
        for number, operand in enumerate(rule.inputs)
    )
    return inputs, tuple(Layout(dims(operand), partial, reduction) for operand in rule.outputs)


def _partial(rule: Rule, splits: Splits) -> tuple[tuple[str, ...], Reduction]:
    reduced = [name for name in splits if rule.factors[name].kind in ("sum", "mask", "max")]
    axes = tuple(axis for name in sorted(reduced) for axis in splits[name].axes)
    return tuple(sorted(axes)), "max" if any(rule.factors[name].kind == "max" for name in reduced) else "sum"
