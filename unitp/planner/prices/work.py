"""The prices of choices, in seconds: of a node under each assignment, and of a conversion between two layouts.

    work         max over ranks r of   max(flops_r / F_r, bytes_r / B_r) + overhead_r     (`unitp.cost.device`)
    conversion   sum of its steps: a slice is a copy (of the slowest rank), a collective has latency, bytes and a price per call

Each rank does its own part at its own speed. A quantity per rank is a row with one number for each rank, or a single number if
all ranks are alike. A split of an inner factor is priced by its expansion, collectives included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.cost import Device, Machine, collective_seconds
from unitp.cost.device import Points, at_rows
from unitp.graph.graph import Graph
from unitp.graph.ops import Rule, flops, infer, layouts, operator, rule_of
from unitp.graph.values import Node, TensorType, item_bytes
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import Assignment
from unitp.planner.prices.conversions import Conversions
from unitp.plans import Phase, PhasePlan, Plan
from unitp.program.instructions import AllGather, Collective, Instruction, Local, Value, kind_of
from unitp.program.lower import lower

Shape = tuple[int, ...]
Row = npt.NDArray[np.float64]


class _Speeds:
    """F, B and overhead of an operator in a dtype: rows over ranks, or of length 1 if all ranks are alike."""

    def __init__(self, devices: Sequence[Device], op: str, dtype: str) -> None:
        speeds = [device.speed(op, dtype) for device in devices]
        self.flops = np.array([s.flops_per_s for s in speeds])
        self.bandwidth = np.array([s.bytes_per_s for s in speeds])
        self.overhead = np.array([s.operator_s for s in speeds])
        self.points: list[Points] = [s.points for s in speeds] if any(s.points for s in speeds) else []
        listed = [device.operators.get(op) for device in devices]
        self.view = max((rate.operator_s or 0.0) if rate else 0.0 for rate in listed)

    def seconds(self, work: float | Row, moved: float | Row, rows: float | Row) -> float:
        """Return the seconds of the slowest rank.

        work, moved   FLOPs and bytes of each rank
        rows          the rows of a contraction, for devices that were measured by rows
        """
        local = np.maximum(work / self.flops, moved / self.bandwidth)
        if self.points:
            local = self._by_rows(local, work, rows)
        return float(np.max(local + self.overhead))

    def _by_rows(self, roofline: Row, work: float | Row, rows: float | Row) -> Row:
        """Replace the roofline's seconds by those of the table, for ranks whose device has one."""
        if len(self.points) == 1:
            return np.asarray(work / at_rows(self.points[0], rows))
        works, many = np.broadcast_to(work, roofline.shape), np.broadcast_to(rows, roofline.shape)
        found = zip(self.points, roofline, works, many, strict=True)
        return np.array([w / at_rows(p, n) if p else known for p, known, w, n in found])


class Prices:
    """The prices of operators and conversions on one machine and mesh."""

    def __init__(self, machine: Machine, mesh: Mesh) -> None:
        self.machine, self.mesh = machine, mesh
        self._conversions = Conversions(mesh, self.step)
        self._rows: dict[tuple[Split, int], Row] = {}
        self._links = {axis: machine.ring(axis, mesh) for axis, size in mesh.axes if size > 1}
        devices = [machine.working(rank, mesh) for rank in range(mesh.size)]
        self._devices = devices if any(d != devices[0] for d in devices) else devices[:1]
        self._speeds: dict[tuple[str, str], _Speeds] = {}
        self._copies = self.speeds("", "float32")
        self.program_s = machine.program_s(mesh)

    def held(self, layout: Layout, shape: Shape, dtype: str) -> float:
        """Return the bytes that all ranks together hold of a tensor of this global shape."""
        of_ranks = np.broadcast_to(self.bytes(layout.bind(shape, self.mesh), shape, dtype), self.mesh.size)
        return float(np.sum(of_ranks))

    def copies(
        self, shape: Shape, dtype: str, produced: Sequence[Layout], required: Sequence[Layout]
    ) -> npt.NDArray[np.float64]:
        """Return the bytes, on all ranks together, of a copy in each layout of `required` in addition to one in each of `produced`."""
        made = [self.held(layout, shape, dtype) for layout in required]
        return np.array([[0.0 if a == b else size for b, size in zip(required, made, strict=True)] for a in produced])

    def conversions(
        self, shape: Shape, dtype: str, produced: Sequence[Layout], required: Sequence[Layout]
    ) -> npt.NDArray[np.float64]:
        """Return the seconds of converting from each layout in `produced` to each in `required`; inf if that is impossible."""
        return self._conversions.table(shape, dtype, produced, required)

    def step(self, instruction: Instruction, before: Value, after: Value) -> float:
        """Return the seconds of one conversion instruction."""
        if not isinstance(instruction, Collective):
            made = self.bytes(after.layout, after.shape, after.dtype)
            return self._copies.seconds(0.0, 2 * made, 0.0)
        value = after if isinstance(instruction, AllGather) else before
        whole = float(np.max(self.bytes(value.layout, value.shape, value.dtype)))
        ranks, link = self.mesh.axis_size(instruction.axis), self._links[instruction.axis]
        return collective_seconds(link, kind_of(instruction), ranks, whole)

    def work(
        self,
        node: Node,
        sizes: Mapping[str, int],
        types: Sequence[TensorType | None],
        assignments: Sequence[Assignment],
    ) -> npt.NDArray[np.float64]:
        """Return the seconds of a node under each assignment.

        sizes   the size of each symbol
        types   of its inputs, with global shapes in numbers; None for an absent input
        """
        bound = msgspec.structs.replace(node, attrs={k: _bound(v, sizes) for k, v in node.attrs.items()})
        rule = rule_of(bound.op, bound.attrs, [t.shape if t else None for t in types])
        outputs = infer(bound, {name: t for name, t in zip(bound.inputs, types, strict=True) if t})
        inner = {name for name, factor in rule.factors.items() if factor.kind == "inner"}
        return np.array(
            [
                self._expanded(bound, types, dict(a))
                if inner and any(f in inner for f, _ in a)
                else self.local(bound.op, rule, types, outputs, dict(a))
                for a in assignments
            ]
        )

    def local(
        self,
        op: str,
        rule: Rule,
        types: Sequence[TensorType | None],
        outputs: Sequence[TensorType],
        splits: Mapping[str, Split],
    ) -> float:
        """Return the seconds of a local operator on the slowest rank. `types` and `outputs` have global shapes."""
        traffic = operator(op).traffic
        dtype = next(t.dtype for t in (*types, *outputs) if t)
        speeds = self.speeds(op, dtype)
        if traffic == "none":
            return speeds.view
        bound = {f: s.bind(int(rule.factors[f].size), self.mesh) for f, s in splits.items() if f in rule.factors}
        sizes = {f: int(factor.size) for f, factor in rule.factors.items()}
        rows = {f: self.row(bound[f], n) if f in bound else n for f, n in sizes.items()}
        required, produced = layouts(rule, bound)
        read = [self._of(w, t) for w, t in zip(required, types, strict=True) if w and t]
        written = [self._of(lay, t) for lay, t in zip(produced, outputs, strict=True)]
        if traffic == "update":
            moved: float | Row = 2.0 * np.minimum(read[0], read[1])
        else:
            moved = sum(read) + sum(written) if traffic == "all" else 2 * sum(written)
        work = flops(op, rule, rows)
        reuse: float | Row = 0.0
        if speeds.points:  # the number of multiplications per element of the weight
            reuse = work / (2 * np.maximum(read[1] / item_bytes(dtype), 1.0))
        return speeds.seconds(work, moved, reuse)

    def speeds(self, op: str, dtype: str) -> _Speeds:
        """Return the speeds of the ranks for an operator in a dtype."""
        if (found := self._speeds.get((op, dtype))) is None:
            found = self._speeds[op, dtype] = _Speeds(self._devices, op, dtype)
        return found

    def _of(self, layout: Layout, type_: TensorType) -> float | Row:
        return self.bytes(layout, tuple(map(int, type_.shape)), type_.dtype)

    def bytes(self, layout: Layout, shape: Shape, dtype: str) -> float | Row:
        """Return the bytes of each rank's part (or one number if all are alike) of a global shape. `layout` must be bound."""
        sizes = [self.row(s, n) if s else float(n) for s, n in zip(layout.dims, shape, strict=True)]
        return prod(sizes, start=float(item_bytes(dtype)))

    def row(self, split: Split, size: int) -> Row:
        """Return the length of each rank's interval under a split of a dim."""
        if (found := self._rows.get((split, size))) is None:
            lengths = np.array([b - a for a, b in split.bind(size, self.mesh).intervals], np.float64)
            found = lengths[[self.mesh.flat(rank, split.axes) for rank in range(self.mesh.size)]]
            self._rows[split, size] = found
        return found

    def _expanded(self, node: Node, types: Sequence[TensorType | None], splits: dict[str, Split]) -> float:
        """Return the seconds of the program that a graph with this node alone is lowered to."""
        names = tuple(f"x{i}" if t is not None else "" for i, t in enumerate(types))
        alone = Node(node.op, names, tuple(f"y{i}" for i in range(len(node.outputs))), node.attrs)
        given = {n: t for n, t in zip(names, types, strict=True) if t is not None}
        graph = Graph("alone", given, alone.outputs, (), (), (alone,))
        rule = rule_of(node.op, node.attrs, [t.shape if t else None for t in types])
        required, _ = layouts(rule, splits)
        values = {n: w for n, w in zip(names, required, strict=True) if w is not None}
        phase = PhasePlan(Phase("alone", {}), {alone.name: splits}, values)
        plan = Plan(graph.hash, self.mesh, {}, {}, (phase,))
        program = lower(graph, plan, "alone")
        return sum(self.instruction(i, program.values) for i in program.instructions)

    def instruction(self, instruction: Instruction, values: Mapping[str, Value]) -> float:
        """Return the seconds of one instruction of a program; `values` describes its operands and results."""
        if not isinstance(instruction, Local):
            return self.step(instruction, values[instruction.input], values[instruction.output])
        types = [_type(values[n]) if n else None for n in instruction.inputs]
        outputs = [_type(values[n]) for n in instruction.outputs]
        op, shapes = instruction.op, [t.shape if t else None for t in types]
        rule = rule_of(op, instruction.attrs, shapes, [t.shape for t in outputs])
        return self.local(op, rule, types, outputs, instruction.splits)


def _type(value: Value) -> TensorType:
    return TensorType(value.dtype, value.shape)


def _bound(value: object, sizes: Mapping[str, int]) -> object:
    if isinstance(value, tuple):
        return tuple(sizes[v] if isinstance(v, str) else v for v in value)
    return sizes.get(value, value) if isinstance(value, str) else value
