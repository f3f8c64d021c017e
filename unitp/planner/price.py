"""What a choice costs: the work of a node under each assignment, and the conversion between each two layouts, in seconds.

    work         max over ranks r of   max(flops_r / F_r, bytes_r / B_r) + overhead_r
    conversion   sum of its steps: a slice is a copy (of the slowest rank), a collective has latency, bytes and a price per call

Each rank does its own part at its own speed, so what is per rank is a row of numbers, one per rank (or one number where all
hold the same). An inner split is priced by what it expands to, collectives included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.cost import Machine, collective_seconds
from unitp.graph.graph import Graph, Node, TensorType
from unitp.graph.ops import flops, infer, layouts, operator, rule_of
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.candidates import Assignment
from unitp.plans import Certificate, Phase, PhasePlan, Plan
from unitp.program.convert import steps
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Instruction,
    Local,
    ReduceScatter,
    Value,
)
from unitp.program.lower import lower

Shape = tuple[int, ...]
Row = npt.NDArray[np.float64]
KINDS = {AllReduce: "all_reduce", AllGather: "all_gather", ReduceScatter: "reduce_scatter", AllToAll: "all_to_all"}


class Prices:
    """Prices on one machine and mesh."""

    def __init__(self, machine: Machine, mesh: Mesh) -> None:
        self.machine, self.mesh = machine, mesh
        self._memo: dict[tuple[Shape, str, Layout, Layout], float] = {}
        self._rows: dict[tuple[Split, int], Row] = {}
        self._links = {axis: machine.ring(axis, mesh) for axis, size in mesh.axes if size > 1}
        devices = [machine.device(rank) for rank in range(mesh.size)]
        self._devices = devices if any(d != devices[0] for d in devices) else devices[:1]
        self._bandwidth = np.array([d.memory_bytes_per_s for d in self._devices])
        self._overhead = np.array([d.operator_s for d in self._devices])
        self._flops: dict[str, Row] = {}

    def held(self, layout: Layout, shape: Shape, dtype: str) -> float:
        """The small price of keeping a tensor, by the bytes that a rank holds on average."""
        return float(np.mean(self.bytes(layout.bind(shape, self.mesh), shape, dtype))) * self.machine.held_byte_s

    def conversions(
        self, shape: Shape, dtype: str, left: Sequence[Layout], wanted: Sequence[Layout]
    ) -> npt.NDArray[np.float64]:
        """Seconds from each layout in `left` to each in `wanted`."""
        sources = [lay.bind(shape, self.mesh) for lay in left]
        targets = [lay.bind(shape, self.mesh) for lay in wanted]
        return np.array([[self._conversion(shape, dtype, a, b) for b in targets] for a in sources])

    def _conversion(self, shape: Shape, dtype: str, source: Layout, target: Layout) -> float:
        key = (shape, dtype, source, target)
        if key not in self._memo:
            total, at = 0.0, source
            if target.reduction == "max" and not (source.reduction == "max" and {*target.partial} <= {*source.partial}):
                total, target = np.inf, source  # no instruction makes a maximum still to be taken
            for instruction, after in steps(source, target, self.mesh):
                total += self.step(instruction, Value(dtype, shape, at), Value(dtype, shape, after))
                at = after
            self._memo[key] = total
        return self._memo[key]

    def step(self, instruction: Instruction, before: Value, after: Value) -> float:
        """Seconds of one conversion instruction."""
        if not isinstance(instruction, Collective):
            made = self.bytes(after.layout, after.shape, after.dtype)
            return float(np.max(2 * made / self._bandwidth + self._overhead))
        value = after if isinstance(instruction, AllGather) else before
        whole = float(np.max(self.bytes(value.layout, value.shape, value.dtype)))
        ranks, link = self.mesh.axis_size(instruction.axis), self._links[instruction.axis]
        return collective_seconds(self.machine, KINDS[type(instruction)], ranks, whole, link)

    def work(
        self,
        node: Node,
        sizes: Mapping[str, int],
        types: Sequence[TensorType | None],
        assignments: Sequence[Assignment],
    ) -> npt.NDArray[np.float64]:
        """Seconds of a node under each assignment. `types`: of its inputs, with numbers for shapes."""
        bound = msgspec.structs.replace(node, attrs={k: _bound(v, sizes) for k, v in node.attrs.items()})
        return np.array([self._work(bound, types, dict(a)) for a in assignments])

    def _work(self, node: Node, types: Sequence[TensorType | None], splits: dict[str, Split]) -> float:
        rule = rule_of(node.op, node.attrs, [t.shape if t else None for t in types])
        if any(rule.factors[f].kind == "inner" for f in splits):
            return self._expanded(node, types, splits)
        known = {name: t for name, t in zip(node.inputs, types, strict=True) if t}
        return self.local(node, types, infer(node, known), splits)

    def local(
        self,
        node: Node,
        types: Sequence[TensorType | None],
        outputs: Sequence[TensorType],
        splits: Mapping[str, Split],
    ) -> float:
        """Seconds of a local operator on the rank that takes longest."""
        traffic = operator(node.op).traffic
        if traffic == "none":
            return 0.0
        rule = rule_of(node.op, node.attrs, [t.shape if t else None for t in types], [t.shape for t in outputs])
        bound = {f: s.bind(int(rule.factors[f].size), self.mesh) for f, s in splits.items() if f in rule.factors}
        sizes = {f: int(factor.size) for f, factor in rule.factors.items()}
        rows = {f: self.row(bound[f], n) if f in bound else n for f, n in sizes.items()}
        wanted, left = layouts(rule, bound)
        read = [self._of(w, t) for w, t in zip(wanted, types, strict=True) if w and t]
        written = [self._of(lay, t) for lay, t in zip(left, outputs, strict=True)]
        if traffic == "update":
            moved: float | Row = 2.0 * np.minimum(read[0], read[1])
        else:
            moved = sum(read) + sum(written) if traffic == "all" else 2 * sum(written)
        dtype = next(t.dtype for t in (*types, *outputs) if t)
        return self._slowest(flops(node.op, rule, rows), moved, dtype)

    def _slowest(self, work: float | Row, moved: float | Row, dtype: str) -> float:
        if dtype not in self._flops:
            self._flops[dtype] = np.array([d.flops(dtype) for d in self._devices])
        return float(np.max(np.maximum(work / self._flops[dtype], moved / self._bandwidth) + self._overhead))

    def _of(self, layout: Layout, type_: TensorType) -> float | Row:
        return self.bytes(layout, tuple(map(int, type_.shape)), type_.dtype)

    def bytes(self, layout: Layout, shape: Shape, dtype: str) -> float | Row:
        """Bytes of each rank's part; one number where all hold the same. `layout` is bound."""
        sizes = [self.row(s, n) if s else float(n) for s, n in zip(layout.dims, shape, strict=True)]
        return prod(sizes, start=float(np.dtype(dtype).itemsize))

    def row(self, split: Split, size: int) -> Row:
        """The length of each rank's interval."""
        if (found := self._rows.get((split, size))) is None:
            lengths = np.array([b - a for a, b in split.bind(size, self.mesh).intervals], np.float64)
            found = lengths[[self.mesh.flat(rank, split.axes) for rank in range(self.mesh.size)]]
            self._rows[split, size] = found
        return found

    def _expanded(self, node: Node, types: Sequence[TensorType | None], splits: dict[str, Split]) -> float:
        """Lower the node alone and add up what it became."""
        names = tuple(f"x{i}" if t is not None else "" for i, t in enumerate(types))
        alone = Node(node.op, names, tuple(f"y{i}" for i in range(len(node.outputs))), node.attrs)
        given = {n: t for n, t in zip(names, types, strict=True) if t is not None}
        graph = Graph("alone", given, alone.outputs, (), (), (alone,))
        rule = rule_of(node.op, node.attrs, [t.shape if t else None for t in types])
        wanted, _ = layouts(rule, splits)
        values = {n: w for n, w in zip(names, wanted, strict=True) if w is not None}
        phase = PhasePlan(Phase("alone", {}), {alone.name: splits}, values)
        plan = Plan(graph.hash, self.mesh, {}, {}, (phase,), Certificate(0, 0, 0, "", 0))
        program = lower(graph, plan, "alone")
        return sum(self.instruction(i, program.values) for i in program.instructions)

    def instruction(self, instruction: Instruction, values: Mapping[str, Value]) -> float:
        """Seconds of one instruction of a program."""
        if not isinstance(instruction, Local):
            return self.step(instruction, values[instruction.input], values[instruction.output])
        types = [_type(values[n]) if n else None for n in instruction.inputs]
        outputs = [_type(values[n]) for n in instruction.outputs]
        node = Node(instruction.op, instruction.inputs, instruction.outputs, instruction.attrs)
        return self.local(node, types, outputs, instruction.splits)


def _type(value: Value) -> TensorType:
    return TensorType(value.dtype, value.shape)


def _bound(value: object, sizes: Mapping[str, int]) -> object:
    if isinstance(value, tuple):
        return tuple(sizes[v] if isinstance(v, str) else v for v in value)
    return sizes.get(value, value) if isinstance(value, str) else value
