"""What a choice costs: the work of a node under each assignment, and the conversion between each two layouts, in seconds.

Work is the roofline of the slowest rank. An inner split is priced by what it expands to, collectives included. A
conversion is the sum of its steps: a slice is a copy, a collective has latency, bytes and a price per call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.cost import Machine, collective_seconds, copy_seconds, operator_seconds
from unitp.graph.graph import Graph, Node, TensorType
from unitp.graph.ops import flops, layouts, operator, rule_of
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
KINDS = {AllReduce: "all_reduce", AllGather: "all_gather", ReduceScatter: "reduce_scatter", AllToAll: "all_to_all"}


class Prices:
    """Prices on one machine and mesh."""

    def __init__(self, machine: Machine, mesh: Mesh) -> None:
        self.machine, self.mesh = machine, mesh
        self._memo: dict[tuple[Shape, str, Layout, Layout], float] = {}

    def held(self, layout: Layout, shape: Shape, dtype: str) -> float:
        """The small price of keeping a tensor, by the bytes of the rank that holds most."""
        return _bytes(layout, shape, dtype, self.mesh) * self.machine.held_byte_s

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
            for instruction, after in steps(source, target, self.mesh):
                total += self.step(instruction, Value(dtype, shape, at), Value(dtype, shape, after))
                at = after
            self._memo[key] = total
        return self._memo[key]

    def step(self, instruction: Instruction, before: Value, after: Value) -> float:
        """Seconds of one conversion instruction."""
        given = _bytes(before.layout, before.shape, before.dtype, self.mesh)
        made = _bytes(after.layout, after.shape, after.dtype, self.mesh)
        if not isinstance(instruction, Collective):
            return copy_seconds(self.machine, made)
        ranks = self.mesh.axis_size(instruction.axis)
        whole = made if isinstance(instruction, AllGather) else given
        return collective_seconds(self.machine, KINDS[type(instruction)], ranks, whole)

    def work(
        self,
        node: Node,
        sizes: Mapping[str, int],
        shapes: Sequence[Shape | None],
        dtype: str,
        assignments: Sequence[Assignment],
    ) -> npt.NDArray[np.float64]:
        """Seconds of a node under each assignment."""
        bound = msgspec.structs.replace(node, attrs={k: _bound(v, sizes) for k, v in node.attrs.items()})
        return np.array([self._work(bound, shapes, dtype, dict(a)) for a in assignments])

    def _work(self, node: Node, shapes: Sequence[Shape | None], dtype: str, splits: dict[str, Split]) -> float:
        rule = rule_of(node.op, node.attrs, shapes)
        if any(rule.factors[f].kind == "inner" for f in splits):
            return self._expanded(node, shapes, dtype, splits)
        outputs = [tuple(int(n) for n in shape) for shape in rule.output_shapes()]
        return self.local(node, shapes, outputs, dtype, splits)

    def local(
        self,
        node: Node,
        shapes: Sequence[Shape | None],
        outputs: Sequence[Shape],
        dtype: str,
        splits: Mapping[str, Split],
    ) -> float:
        """Seconds of a local operator on the rank that has most to do."""
        traffic = operator(node.op).traffic
        if traffic == "none":
            return 0.0
        rule = rule_of(node.op, node.attrs, shapes, outputs)
        bound = {f: s.bind(int(rule.factors[f].size), self.mesh) for f, s in splits.items() if f in rule.factors}
        local = {f: _longest(bound[f]) if f in bound else int(factor.size) for f, factor in rule.factors.items()}
        wanted, left = layouts(rule, bound)
        read = [_bytes(w, s, dtype, self.mesh) for w, s in zip(wanted, shapes, strict=True) if w and s is not None]
        written = [_bytes(lay, s, dtype, self.mesh) for lay, s in zip(left, outputs, strict=True)]
        moved = {"all": sum(read) + sum(written), "output": 2 * sum(written), "update": 2 * min(read[:2], default=0)}[
            traffic
        ]
        return operator_seconds(self.machine, flops(node.op, rule, local), moved)

    def _expanded(self, node: Node, shapes: Sequence[Shape | None], dtype: str, splits: dict[str, Split]) -> float:
        """Lower the node alone and add up what it became."""
        names = tuple(f"x{i}" if s is not None else "" for i, s in enumerate(shapes))
        alone = Node(node.op, names, tuple(f"y{i}" for i in range(len(node.outputs))), node.attrs)
        given = {n: TensorType(dtype, s) for n, s in zip(names, shapes, strict=True) if s is not None}
        graph = Graph("alone", given, alone.outputs, (), (), (alone,))
        rule = rule_of(node.op, node.attrs, shapes)
        wanted, _ = layouts(rule, splits)
        values = {n: w for n, w in zip(names, wanted, strict=True) if w is not None}
        phase = PhasePlan(Phase("alone", {}), {alone.name: splits}, values)
        plan = Plan(graph.hash, self.mesh, {}, {}, (phase,), Certificate(0, 0, 0, "", 0))
        program = lower(graph, plan, "alone", dtype=dtype)
        return sum(self.instruction(i, program.values) for i in program.instructions)

    def instruction(self, instruction: Instruction, values: Mapping[str, Value]) -> float:
        """Seconds of one instruction of a program."""
        if not isinstance(instruction, Local):
            return self.step(instruction, values[instruction.input], values[instruction.output])
        shapes = [values[n].shape if n else None for n in instruction.inputs]
        outputs = [values[n].shape for n in instruction.outputs]
        dtype = values[next(n for n in (*instruction.inputs, *instruction.outputs) if n)].dtype
        node = Node(instruction.op, instruction.inputs, instruction.outputs, instruction.attrs)
        return self.local(node, shapes, outputs, dtype, instruction.splits)


def _bound(value: object, sizes: Mapping[str, int]) -> object:
    if isinstance(value, tuple):
        return tuple(sizes[v] if isinstance(v, str) else v for v in value)
    return sizes.get(value, value) if isinstance(value, str) else value


def _longest(split: Split) -> int:
    return max(b - a for a, b in split.intervals)


def _bytes(layout: Layout, shape: Shape, dtype: str, mesh: Mesh) -> int:
    """Bytes of the largest local part."""
    sizes = (_longest(s.bind(n, mesh)) if s else n for s, n in zip(layout.dims, shape, strict=True))
    return prod(sizes) * np.dtype(dtype).itemsize
