"""Checks the layouts that instructions produce. They are derived from rules and splits, by code that lowering does not use.

The factor rules (which factor is in which dim, what is summed) are the axioms. Everything else is stated here a second
time: what follows from the split of a factor, how a gather joins intervals, what a slice may take.
"""

from __future__ import annotations

import msgspec

from unitp.errors import GraphError
from unitp.graph.ops import Rule, Term, infer, operator, rule_of
from unitp.graph.values import Node, TensorType
from unitp.layout import Layout, Reduction, Split
from unitp.mesh import Mesh
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Instruction,
    Local,
    Mask,
    Program,
    ReduceScatter,
    Slice,
    reads,
    writes,
)

Conversion = AllReduce | AllGather | ReduceScatter | AllToAll | Slice | Mask
REDUCED = ("sum", "max", "mask")


class Layouts:
    """Derives the layouts that instructions produce. Equal instructions are derived once."""

    def __init__(self, program: Program) -> None:
        self.program, self.mesh = program, program.mesh
        self._right: set[bytes] = set()
        self._made: dict[bytes, str] = {}

    def problem(self, number: int) -> str:
        """Return what is wrong with the type or layout that an instruction produces, or an empty text."""
        instruction, values = self.program.instructions[number], self.program.values
        around = [values[name] for name in (*reads(instruction), *writes(instruction))]
        key = msgspec.msgpack.encode((_nameless(instruction), around))
        if key not in self._right:
            if isinstance(instruction, Local):
                found = self._local(instruction)
            else:
                found = self._converted(instruction)
            if found:
                return found
            self._right.add(key)
        return "" if isinstance(instruction, Local) else self._repeated(instruction)

    def _repeated(self, instruction: Conversion) -> str:
        """Return what is wrong if an equal conversion of the same value was made before, or an empty text."""
        after = self.program.values[instruction.output]
        made = msgspec.msgpack.encode((_nameless(instruction), instruction.input, after))
        first = self._made.setdefault(made, instruction.output)
        return f'it makes "{first}" once more' if first != instruction.output else ""

    # operators

    def _local(self, local: Local) -> str:
        values = self.program.values
        shapes = [values[n].shape if n else None for n in local.inputs]
        types = {n: TensorType(values[n].dtype, values[n].shape) for n in local.inputs if n}
        try:
            rule = rule_of(local.op, local.attrs, shapes, [values[n].shape for n in local.outputs])
            found = infer(Node(local.op, local.inputs, local.outputs, local.attrs), types)
        except GraphError as error:
            return str(error)
        if [s is None for s in shapes] != [terms is None for terms in rule.inputs]:
            return f"{local.op} does not take its inputs so: {', '.join(n or '-' for n in local.inputs)}"
        if len(rule.outputs) != len(local.outputs):
            return f"{local.op} has {len(rule.outputs)} outputs, {len(local.outputs)} are named"
        for name, type_, shape in zip(local.outputs, found, rule.output_shapes(), strict=True):
            if (have := (values[name].dtype, values[name].shape)) != (type_.dtype, shape):
                return f'"{name}" is {have[0]}{list(have[1])}, derived is {type_.dtype}{list(shape)}'
        return _factor_problem(rule, local, self.mesh) or self._operands(rule, local)

    def _operands(self, rule: Rule, local: Local) -> str:
        """Return what is wrong with the layouts of inputs and outputs for these splits, or an empty text."""
        kinds = {f: rule.factors[f].kind for f in local.splits}
        sums = tuple(sorted(a for f, s in local.splits.items() if kinds[f] in REDUCED for a in s.axes))
        for number, (name, terms) in enumerate(zip(local.inputs, rule.inputs, strict=True)):
            if terms is None:
                continue
            required = Layout(tuple(_dim(rule, t, local) for t in terms), sums if number in rule.once else ())
            if (have := self.program.values[name].layout) != required:
                return f'input "{name}" is {have}, its splits require {required}'
        for name, terms in zip(local.outputs, rule.outputs, strict=True):
            dims = tuple(_dim(rule, t, local) for t in terms)
            produced = Layout(dims, sums, "max" if "max" in kinds.values() else "sum")
            if (have := self.program.values[name].layout) != produced:
                return f'output "{name}" is {have}, its splits produce {produced}'
        return ""

    # conversions

    def _converted(self, instruction: Conversion) -> str:
        before, after = self.program.values[instruction.input], self.program.values[instruction.output]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return "a conversion changes dtype or shape"
        return _conversion_problem(instruction, before.layout, after.layout, self.mesh)


def _nameless(instruction: Instruction) -> tuple[object, ...]:
    """Return an instruction without the names of its values. Which of them are absent is kept."""
    if isinstance(instruction, Local):
        present = [bool(name) for name in instruction.inputs]
        return instruction.op, instruction.attrs, instruction.splits, present
    fields = (getattr(instruction, f) for f in instruction.__struct_fields__ if f not in ("input", "output"))
    return type(instruction).__name__, *fields


def _factor_problem(rule: Rule, local: Local, mesh: Mesh) -> str:
    """Return what is wrong with the splits of an operator's factors, or an empty text."""
    for name, split in local.splits.items():
        factor = rule.factors.get(name)
        if factor is None:
            return f"{local.op} has no factor {name}"
        if problems := Layout((split,)).problems((int(factor.size),), mesh):
            return f"the split of {name}: {'; '.join(problems)}"
        if factor.kind in ("whole", "inner") or not _major(rule, name):
            return f"factor {name} of {local.op} cannot be split here"
        if split.overlaps and factor.kind in REDUCED:
            return f"factor {name} is reduced, and rows of its split overlap"
    kinds = {rule.factors[name].kind for name in local.splits} & {*REDUCED}
    if "max" in kinds and len(kinds) > 1:
        return "a sum and a maximum are both split"
    return _candidate_problem(local) if operator(local.op).candidates else ""


def _major(rule: Rule, name: str) -> bool:
    """Say whether a factor is the major one of every dim in which it appears."""
    terms = [term for operand in (*rule.inputs, *rule.outputs) for term in operand or ()]
    return all(term.factors[0] == name for term in terms if name in term.factors)


def _candidate_problem(local: Local) -> str:
    """Return what is wrong with the number of candidates: each rank has min(k, rows of its own part)."""
    rows, picked, k = local.splits.get("v"), local.splits.get("c"), local.attrs.get("k")
    if rows is None or picked is None or rows.axes != picked.axes:
        return f"candidates and rows of {local.op} are not split alike"
    if rows.overlaps or picked.overlaps or not isinstance(k, int):
        return f"rows or candidates of {local.op} overlap, or k is not a number"
    counts = [b - a for a, b in picked.intervals]
    if counts != [min(k, b - a) for a, b in rows.intervals]:
        return f"ranks have {counts} candidates of {k} among rows {rows}"
    return ""


def _dim(rule: Rule, term: Term, local: Local) -> Split | None:
    """Return the split of a dim that follows from its major factor: scaled by the minor ones, or the groups that it touches."""
    split = local.splits.get(term.factors[0]) if term.factors else None
    if split is None:
        return None
    scale = 1
    for minor in term.factors[1:]:
        scale *= int(rule.factors[minor].size)
    return Split(split.axes, tuple(_rows(a, b, scale, term.ratio) for a, b in split.intervals))


def _rows(a: int, b: int, scale: int, ratio: int) -> tuple[int, int]:
    """Return the rows of a dim for [a, b) of a factor: `scale` rows each, or one row for every `ratio` that is touched."""
    if ratio == 1:
        return a * scale, b * scale
    first = a // ratio
    return first, (b + ratio - 1) // ratio if b > a else first


def _conversion_problem(instruction: Conversion, before: Layout, after: Layout, mesh: Mesh) -> str:
    """Return what is wrong with a conversion from layout `before` to `after`, or an empty text."""
    match instruction:
        case AllReduce():
            if instruction.axis not in before.partial:
                return f"the value is not partial over {instruction.axis}"
            if instruction.reduction != before.reduction:
                return f"a partial {before.reduction} is reduced by {instruction.reduction}"
            return _differs(Layout(before.dims, *_less(before, instruction.axis)), after)
        case AllGather():
            split = before.dims[instruction.dim]
            if split is None or split.axes[-1] != instruction.axis:
                return f"dim {instruction.dim} is not split over {instruction.axis}"
            return _differs(_with(before, {instruction.dim: _joined(split, mesh)}), after)
        case ReduceScatter():
            return _scatter_problem(instruction, before, after, mesh)
        case AllToAll():
            return _exchange_problem(instruction, before, after)
        case Slice():
            want = after.dims[instruction.dim]
            if want is None or not _within(want, before.dims[instruction.dim], mesh):
                return f"dim {instruction.dim} of {after} is not part of {before}"
            return _differs(_with(before, {instruction.dim: want}), after)
        case Mask():
            if instruction.axis in (*before.partial, *before.axes):
                return f"the value is already split or partial over {instruction.axis}"
            if before.partial and before.reduction != "sum":
                return "a partial maximum cannot become a partial sum"
            return _differs(Layout(before.dims, tuple(sorted((*before.partial, instruction.axis)))), after)


def _scatter_problem(instruction: ReduceScatter, before: Layout, after: Layout, mesh: Mesh) -> str:
    if instruction.axis not in before.partial or before.reduction != "sum":
        return f"the value is not a partial sum over {instruction.axis}"
    want = after.dims[instruction.dim]
    if want is None or want.axes[-1] != instruction.axis or _joined(want, mesh) != before.dims[instruction.dim]:
        return f"dim {instruction.dim} of {after} is not that of {before} split further over {instruction.axis}"
    if want.overlaps:
        return "a sum is scattered over rows that overlap"
    return _differs(Layout(_with(before, {instruction.dim: want}).dims, *_less(before, instruction.axis)), after)


def _exchange_problem(instruction: AllToAll, before: Layout, after: Layout) -> str:
    axis, source, dim = instruction.axis, instruction.source, instruction.dim
    have, want = before.dims[source], after.dims[dim]
    if have is None or have.axes != (axis,) or before.dims[dim] is not None:
        return f"dim {source} is not split over {axis} alone, or dim {dim} is split"
    if source == dim or want is None or want.axes != (axis,):
        return f"dim {dim} is not left split over {axis}"
    return _differs(_with(before, {source: None, dim: want}), after)


def _differs(derived: Layout, after: Layout) -> str:
    return "" if derived == after else f"the output is {after}, derived is {derived}"


def _less(layout: Layout, axis: str) -> tuple[tuple[str, ...], Reduction]:
    """Return the partial axes without `axis`, and the reduction of the others."""
    left = tuple(a for a in layout.partial if a != axis)
    return left, layout.reduction if left else "sum"


def _with(layout: Layout, dims: dict[int, Split | None]) -> Layout:
    return Layout(tuple(dims.get(i, s) for i, s in enumerate(layout.dims)), layout.partial, layout.reduction)


def _joined(split: Split, mesh: Mesh) -> Split | None:
    """Return the split after its minor axis is joined: from the first to the last row that the group holds."""
    if len(split.axes) == 1:
        return None
    n = mesh.sizes[split.axes[-1]]
    out = []
    for start in range(0, len(split.intervals), n):
        rows = [i for i in split.intervals[start : start + n] if i[0] < i[1]]
        empty = split.intervals[start][0]
        out.append((min((a for a, _ in rows), default=empty), max((b for _, b in rows), default=empty)))
    return Split(split.axes[:-1], tuple(out))


def _within(inner: Split, outer: Split | None, mesh: Mesh) -> bool:
    """Say whether every rank already holds its rows of `inner`."""
    if outer is None:
        return True
    if inner.axes[: len(outer.axes)] != outer.axes:
        return False
    for flat, (a, b) in enumerate(inner.intervals):
        for axis in reversed(inner.axes[len(outer.axes) :]):
            flat //= mesh.sizes[axis]
        low, high = outer.intervals[flat]
        if a < b and not (low <= a and b <= high):
            return False
    return True
