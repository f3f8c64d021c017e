"""Is a program right? Fields first, then every layout derived again from rules and splits, by code that shares none with lowering.

The factor rules are the axioms. What is checked: names, dtypes, shapes and layouts of all values; that each local operator gets
its inputs in the layouts that its splits ask for and leaves the outputs that follow; that each conversion does what its
name says; that states keep their layout and outputs are whole sums; that all ranks of a group meet in the same collectives in the
same order; that peak memory fits. Deadlocks and mismatches of ranks are thus errors before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError, ProgramError
from unitp.graph.graph import DTYPES, Graph, Node, TensorType
from unitp.graph.ops import Rule, Term, infer, rule_of
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.program.instructions import (
    SCHEMA,
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Instruction,
    Local,
    Mask,
    Program,
    ReduceScatter,
    Slice,
    Value,
    reads,
    writes,
)
from unitp.program.memory import peak
from unitp.program.text import at, line

REDUCED = ("sum", "max", "mask")


def check(program: Program, graph: Graph | None = None, *, memory_limit: int | None = None) -> None:
    """Raise ProgramError, naming the instruction, where `program` is wrong (for `graph`, if it is given).

    `memory_limit`: bytes that no rank may exceed.
    """
    _Check(program).run()
    if graph is not None:
        _check_graph(program, graph)
    if memory_limit is not None:
        for rank in range(program.mesh.size):
            if (need := peak(program, rank).peak) > memory_limit:
                raise ProgramError(f"rank {rank} needs {need} bytes at its peak, {memory_limit} are allowed")


def check_ranks(programs: Sequence[Program]) -> None:
    """Raise ProgramError where the programs of the ranks (by rank number) do not meet in the same collectives, or differ."""
    first = programs[0]
    for rank, program in enumerate(programs[1:], start=1):
        if program.mesh != first.mesh:
            raise ProgramError(f"rank {rank} has mesh {program.mesh}, rank 0 {first.mesh}")
        for number, (mine, other) in enumerate(zip(program.instructions, first.instructions, strict=False)):
            if mine != other:
                raise ProgramError(
                    f"rank {rank} differs from rank 0 at {at(program, number)}; rank 0 has {line(other)}"
                )
        if len(program.instructions) != len(first.instructions):
            number = min(len(program.instructions), len(first.instructions))
            longer = max((program, first), key=lambda p: len(p.instructions))
            raise ProgramError(f"ranks 0 and {rank} differ in length from {at(longer, number)}")
        if program.values != first.values:
            raise ProgramError(f"rank {rank} has other values than rank 0")


class _Check:
    """One pass. `defined` maps each value that exists so far to its type and layout."""

    def __init__(self, program: Program) -> None:
        self.program, self.mesh = program, program.mesh
        self.defined: set[str] = set()
        self.legal: set[tuple[tuple[int, ...], Layout]] = set()

    def run(self) -> None:
        program = self.program
        if program.schema != SCHEMA:
            raise ProgramError(f"program schema {program.schema}, this unitp reads {SCHEMA}")
        for name, value in program.values.items():
            self.value(name, value)
        for name in (*program.inputs, *program.parameters, *(old for old, _ in program.states)):
            self.given(name)
        for number, instruction in enumerate(program.instructions):
            problem = self.fields(instruction) or self.derive(instruction)
            if problem:
                raise ProgramError(f"{at(program, number)}: {problem}")
            self.defined |= set(writes(instruction))
        self.ends()

    def value(self, name: str, value: Value) -> None:
        if value.dtype not in DTYPES:
            raise ProgramError(f'value "{name}" has dtype "{value.dtype}", known are {", ".join(DTYPES)}')
        if any(not isinstance(n, int) or n < 0 for n in value.shape):
            raise ProgramError(f'value "{name}" has shape {value.shape}')
        key = (value.shape, value.layout)
        if key not in self.legal:
            if problems := value.layout.problems(value.shape, self.mesh):
                raise ProgramError(f'value "{name}"{self.maker(name)}: {"; ".join(problems)}')
            self.legal.add(key)

    def maker(self, name: str) -> str:
        """Where a value comes from, for messages."""
        for number, instruction in enumerate(self.program.instructions):
            if name in writes(instruction):
                return f" of {at(self.program, number)}"
        return ""

    def given(self, name: str) -> None:
        if name not in self.program.values:
            raise ProgramError(f'"{name}" comes from outside, but is no value of the program')
        if name in self.defined:
            raise ProgramError(f'"{name}" comes from outside twice')
        if self.program.values[name].layout.partial:
            raise ProgramError(f'"{name}" comes from outside as a partial sum')
        self.defined.add(name)

    def ends(self) -> None:
        for name in self.program.outputs:
            if name not in self.defined:
                raise ProgramError(f'output "{name}" is not defined')
            if self.program.values[name].layout.partial:
                raise ProgramError(f'output "{name}"{self.maker(name)} is a partial sum')
        for old, new in self.program.states:
            if new not in self.defined:
                raise ProgramError(f'state "{new}" is not defined')
            if self.program.values[old] != self.program.values[new]:
                raise ProgramError(
                    f'state "{old}" is replaced by "{new}"{self.maker(new)}, which has another type or layout'
                )

    # fields

    def fields(self, instruction: Instruction) -> str:
        """What is malformed about an instruction, or nothing."""
        for name in reads(instruction):
            if name not in self.defined:
                return f'"{name}" is read before it is defined'
        for name in writes(instruction):
            if name in self.defined or writes(instruction).count(name) > 1:
                return f'"{name}" is defined twice'
            if name not in self.program.values:
                return f'"{name}" is no value of the program'
        if isinstance(instruction, Local):
            return self.split_fields(instruction)
        axis = getattr(instruction, "axis", None)
        if axis is not None and axis not in self.mesh.sizes:
            return f"axis {axis} is not on the mesh ({self.mesh})"
        rank = len(self.program.values[instruction.input].shape)
        for field in ("dim", "source"):
            dim = getattr(instruction, field, 0)
            if not 0 <= dim < max(rank, 1):
                return f"{field} {dim} of a value with {rank} dims"
        if isinstance(instruction, AllReduce) and instruction.reduction not in ("sum", "max"):
            return f'reduction "{instruction.reduction}"'
        return ""

    def split_fields(self, local: Local) -> str:
        # the candidates of a part are split like the part itself
        named = {f: s for f, s in local.splits.items() if (local.op, f) != ("TopKPart", "c")}
        axes = [axis for split in named.values() for axis in split.axes]
        for axis in axes:
            if axis not in self.mesh.sizes:
                return f"axis {axis} is not on the mesh ({self.mesh})"
            if axes.count(axis) > 1:
                return f"axis {axis} splits two factors"
        for name, split in local.splits.items():
            if split.open:
                return f"the split of {name} is not bound"
        return ""

    # layouts

    def derive(self, instruction: Instruction) -> str:
        """What is wrong with the layout or type that an instruction leaves, or nothing."""
        if isinstance(instruction, Local):
            return self.local(instruction)
        before, after = self.program.values[instruction.input], self.program.values[instruction.output]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return "a conversion changes dtype or shape"
        return _conversion(instruction, before.layout, after.layout, self.mesh)

    def local(self, local: Local) -> str:
        values = self.program.values
        types = {n: TensorType(values[n].dtype, values[n].shape) for n in local.inputs if n}
        shapes = [values[n].shape if n else None for n in local.inputs]
        try:
            rule = rule_of(local.op, local.attrs, shapes, [values[n].shape for n in local.outputs])
            found = infer(Node(local.op, local.inputs, local.outputs, local.attrs), types)
        except (GraphError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        if len(rule.outputs) != len(local.outputs):
            return f"{local.op} has {len(rule.outputs)} outputs, {len(local.outputs)} are named"
        if problem := _factors(rule, local, self.mesh):
            return problem
        for name, type_, shape in zip(local.outputs, found, rule.output_shapes(), strict=True):
            if (values[name].dtype, values[name].shape) != (type_.dtype, shape):
                return (
                    f'"{name}" is {values[name].dtype}{list(values[name].shape)}, derived is {type_.dtype}{list(shape)}'
                )
        return self.operands(rule, local)

    def operands(self, rule: Rule, local: Local) -> str:
        sums = sorted(a for f, s in local.splits.items() if rule.factors[f].kind in REDUCED for a in s.axes)
        how = "max" if any(rule.factors[f].kind == "max" for f in local.splits) else "sum"
        for number, (name, terms) in enumerate(zip(local.inputs, rule.inputs, strict=True)):
            if terms is None:
                continue
            wanted = Layout(tuple(_dim(rule, t, local) for t in terms), tuple(sums) if number in rule.once else ())
            if (have := self.program.values[name].layout) != wanted:
                return f'input "{name}" is {have}, its splits want {wanted}'
        for name, terms in zip(local.outputs, rule.outputs, strict=True):
            left = Layout(tuple(_dim(rule, t, local) for t in terms), tuple(sums), how)
            if (have := self.program.values[name].layout) != left:
                return f'output "{name}" is {have}, its splits leave {left}'
        return ""


def _factors(rule: Rule, local: Local, mesh: Mesh) -> str:
    """What is wrong with the splits of an operator's factors."""
    for name, split in local.splits.items():
        factor = rule.factors.get(name)
        if factor is None:
            return f"{local.op} has no factor {name}"
        if problems := Layout((split,)).problems((int(factor.size),), mesh):
            return f"the split of {name}: {'; '.join(problems)}"
        if factor.kind in ("whole", "inner") or not _major(rule, name):
            return f"factor {name} of {local.op} cannot be split here"
        if split.covers and factor.kind in REDUCED:
            return f"factor {name} is reduced, and rows of its split overlap"
    if local.op == "TopKPart":
        return _candidates(local)
    return ""


def _major(rule: Rule, name: str) -> bool:
    """Whether a factor is the major one of every dim that it is part of."""
    terms = [term for operand in (*rule.inputs, *rule.outputs) for term in operand or ()]
    return all(term.factors[0] == name for term in terms if name in term.factors)


def _candidates(local: Local) -> str:
    """Each rank's candidates come from its own part alone: as many as it has, k at most."""
    rows, picked, k = local.splits.get("v"), local.splits.get("c"), local.attrs.get("k")
    if rows is None or picked is None or rows.axes != picked.axes:
        return "candidates and rows of TopKPart are not split alike"
    if rows.covers or not isinstance(k, int):
        return "rows of TopKPart overlap, or k is no number"
    counts = [b - a for a, b in picked.intervals]
    if counts != [min(k, b - a) for a, b in rows.intervals]:
        return f"a rank has {counts} candidates of {k} among rows {rows}"
    return ""


def _dim(rule: Rule, term: Term, local: Local) -> Split | None:
    """The split of a dim, from that of its major factor: scaled by the minor ones, or the groups that it touches."""
    split = local.splits.get(term.factors[0]) if term.factors else None
    if split is None:
        return None
    scale = 1
    for minor in term.factors[1:]:
        scale *= int(rule.factors[minor].size)
    r = term.ratio
    return Split(
        split.axes,
        tuple(
            (a * scale // r, (-(-b // r) if b > a else a // r) * scale if r > 1 else b * scale)
            for a, b in split.intervals
        ),
    )


def _conversion(instruction: Instruction, before: Layout, after: Layout, mesh: Mesh) -> str:
    """What is wrong with a conversion from `before` to `after`, or nothing."""
    match instruction:
        case AllReduce():
            if instruction.axis not in before.partial:
                return f"the value is not partial over {instruction.axis}"
            if instruction.reduction != before.reduction:
                return f"a partial {before.reduction} is reduced by {instruction.reduction}"
            return _same(Layout(before.dims, *_less(before, instruction.axis)), after)
        case AllGather():
            split = before.dims[instruction.dim]
            if split is None or split.axes[-1] != instruction.axis:
                return f"dim {instruction.dim} is not split over {instruction.axis}"
            return _same(_with(before, {instruction.dim: _joined(split, mesh)}), after)
        case ReduceScatter():
            return _reduce_scatter(instruction, before, after, mesh)
        case AllToAll():
            source, want = before.dims[instruction.source], after.dims[instruction.dim]
            if source is None or source.axes != (instruction.axis,) or before.dims[instruction.dim] is not None:
                return f"dim {instruction.source} is not split over {instruction.axis} alone, or dim {instruction.dim} is split"
            if instruction.source == instruction.dim or want is None or want.axes != (instruction.axis,):
                return f"dim {instruction.dim} is not left split over {instruction.axis}"
            return _same(_with(before, {instruction.source: None, instruction.dim: want}), after)
        case Slice():
            want = after.dims[instruction.dim]
            if want is None or not _within(want, before.dims[instruction.dim], mesh):
                return f"dim {instruction.dim} of {after} is no part of {before}"
            return _same(_with(before, {instruction.dim: want}), after)
        case Mask():
            if instruction.axis in (*before.partial, *before.axes):
                return f"the value is already split or partial over {instruction.axis}"
            if before.partial and before.reduction != "sum":
                return "a partial maximum cannot become a partial sum"
            return _same(Layout(before.dims, tuple(sorted((*before.partial, instruction.axis)))), after)
        case Local():
            raise ProgramError(f"{line(instruction)} is no conversion")


def _reduce_scatter(instruction: ReduceScatter, before: Layout, after: Layout, mesh: Mesh) -> str:
    if instruction.axis not in before.partial or before.reduction != "sum":
        return f"the value is not a partial sum over {instruction.axis}"
    want = after.dims[instruction.dim]
    if want is None or want.axes[-1] != instruction.axis or _joined(want, mesh) != before.dims[instruction.dim]:
        return f"dim {instruction.dim} of {after} is not that of {before} split further over {instruction.axis}"
    if want.covers:
        return "a sum is scattered over rows that overlap"
    return _same(Layout(_with(before, {instruction.dim: want}).dims, *_less(before, instruction.axis)), after)


def _same(derived: Layout, after: Layout) -> str:
    return "" if derived == after else f"the output is {after}, derived is {derived}"


def _less(layout: Layout, axis: str) -> tuple[tuple[str, ...], str]:  # the partial axes and reduction that are left
    left = tuple(a for a in layout.partial if a != axis)
    return left, layout.reduction if left else "sum"


def _with(layout: Layout, dims: dict[int, Split | None]) -> Layout:
    return Layout(tuple(dims.get(i, s) for i, s in enumerate(layout.dims)), layout.partial, layout.reduction)


def _joined(split: Split, mesh: Mesh) -> Split | None:
    """What is left of a split when its minor axis is joined: from the first row to the last that the group holds."""
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
    """Whether every rank already holds its rows of `inner`."""
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


def _check_graph(program: Program, graph: Graph) -> None:
    """That a program belongs to a graph: hash, and the types of all that comes from outside."""
    if program.graph != graph.hash:
        raise ProgramError(f"the program is of graph {program.graph}, not {graph.hash}")
    types = {**graph.inputs, **{p.name: p.type for p in graph.parameters}, **{s.input: s.type for s in graph.states}}
    for name in (*program.inputs, *program.parameters, *(old for old, _ in program.states)):
        if name not in types:
            raise ProgramError(f'"{name}" is no input, parameter or state of {graph.name}')
        shape = tuple(program.sizes.get(d, -1) if isinstance(d, str) else d for d in types[name].shape)
        if program.values[name].shape != shape:
            raise ProgramError(f'"{name}" has shape {program.values[name].shape}, the graph gives {shape}')


def collectives(program: Program) -> list[Collective]:
    """The collectives of a program, in the order in which every rank meets them."""
    return [i for i in program.instructions if isinstance(i, Collective)]
