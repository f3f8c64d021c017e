"""What choices need on a rank, in bytes: rows over the variables of a problem that no plan can be below.

    held    parameters, caches and the copies that one phase makes of parameters, by the layouts chosen
    need    of a node while it runs: its inputs as it wants them, its outputs as it leaves them, its working space

The peak of a rank is at least held + any need of that phase. What lives on beside (a residual, the old part of a conversion)
is only known from the lowered program (`unitp.program.memory`), by which every plan is judged in the end.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from unitp.graph.analysis import is_view
from unitp.graph.ops import operator
from unitp.graph.values import Node
from unitp.layout import Layout
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED
from unitp.planner.solve.elimination import Table
from unitp.planner.solve.integer_programs import Row
from unitp.plans import Phase


class Footprint:
    """Rows for any rank; equal layers share the tables of a row."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.graph, self.mesh, self.phases = problem.graph, problem.mesh, problem.phases
        self._tables: dict[object, Table] = {}
        self._held: dict[tuple[int, str], Row] = {}
        self._needs: dict[tuple[int, str], dict[int, Table]] = {}
        self._nodes = {node.name: node for node in self.graph.nodes}
        self._views = {name for node in self.graph.nodes if is_view(node) for name in node.outputs}
        self._parameters = {p.name for p in self.graph.parameters}
        self._kept = self._parameters | {s.input for s in self.graph.states} | {s.output for s in self.graph.states}
        self._kept |= {name for n in self.graph.nodes if n.name in problem.static for name in n.outputs}

    def held(self, rank: int, phase: str) -> Row:
        """Bytes that a rank holds between calls for a phase. A copy that several readers could share counts a part for each."""
        if (rank, phase) not in self._held:
            unary: dict[int, Table] = {}
            for i, variable in enumerate(self.problem.variables):
                if variable.kind in ("parameter", "state"):
                    unary[i] = self._most(variable.name, variable.layouts, rank)
            pairs: dict[tuple[int, int], Table] = {}
            made = [c for c in self.problem.copied if self.problem.variables[c.reader].phase in (phase, SHARED)]
            shares = Counter(copied.value for copied in made)
            for copied in made:
                table = self._copy(copied.value, copied.left, copied.wanted, shares[copied.value], rank)
                key = (min(copied.source, copied.reader), max(copied.source, copied.reader))
                turned = table if copied.source < copied.reader else self._turned(table)
                pairs[key] = pairs[key] + turned if key in pairs else turned
            self._held[rank, phase] = Row(unary, pairs)
        return self._held[rank, phase]

    def needs(self, rank: int, phase: str) -> dict[int, Table]:
        """Bytes that each node of a phase needs at least while it runs, by its assignments."""
        if (rank, phase) not in self._needs:
            sizes = next(p for p in self.phases if p.name == phase)
            nodes = [(i, v) for i, v in enumerate(self.problem.variables) if v.kind == "node" and v.phase == phase]
            self._needs[rank, phase] = {i: self._need(self._nodes[v.name], sizes, rank) for i, v in nodes}
        return self._needs[rank, phase]

    def least_need(self, rank: int, phase: str) -> float:
        """What some node of a phase needs, whatever is chosen."""
        return max((float(table.min()) for table in self.needs(rank, phase).values()), default=0.0)

    def _turned(self, table: Table) -> Table:
        return self._tables.setdefault(("turned", id(table)), table.T)

    def _most(self, name: str, layouts: tuple[Layout, ...], rank: int) -> Table:
        """Bytes of a parameter or cache in each layout, in the phase in which it is largest."""
        type_ = self.graph.types[name]
        shapes = dict.fromkeys(type_.sized(phase.sizes) for phase in self.phases)
        key = ("most", tuple(shapes), type_.dtype, layouts, rank)
        if key not in self._tables:
            rows = [[self._bytes(lay, shape, type_.dtype, rank) for lay in layouts] for shape in shapes]
            self._tables[key] = np.array(rows, float).max(axis=0)
        return self._tables[key]

    def _copy(self, value: str, left: tuple[Layout, ...], wanted: tuple[Layout, ...], share: int, rank: int) -> Table:
        """Bytes of what a reader adds to what is held: nothing where it reads a parameter, or a view of it, as it is."""
        type_ = self.graph.types[value]
        shape = type_.sized(self.phases[0].sizes)
        free = value in self._parameters or value in self._views
        key = ("copy", shape, type_.dtype, left, wanted, share, free, rank)
        if key not in self._tables:
            made = [self._bytes(lay, shape, type_.dtype, rank) / share for lay in wanted]
            rows = [[0.0 if free and a == b else m for b, m in zip(wanted, made, strict=True)] for a in left]
            self._tables[key] = np.array(rows)
        return self._tables[key]

    def _need(self, node: Node, phase: Phase, rank: int) -> Table:
        names = (*node.inputs, *node.outputs)
        types = [(self.graph.types[n].sized(phase.sizes), self.graph.types[n].dtype) if n else None for n in names]
        pattern = tuple(names.index(n) for n in names), tuple(n in self._kept for n in names)
        assignments, sides = self.problem.choices(node.name, phase.name)
        key = ("need", node.op, tuple(types), pattern, id(sides), rank)
        if key not in self._tables:
            factors = self.problem.candidates.rules[node.name].factors
            inner = [any(factors[f].kind == "inner" for f, _ in assignment) for assignment in assignments]
            pairs = zip(sides, inner, strict=True)
            self._tables[key] = np.array([self._need_of(node, phase, *side, rank, parts) for side, parts in pairs])
        return self._tables[key]

    def _need_of(
        self,
        node: Node,
        phase: Phase,
        wanted: tuple[Layout | None, ...],
        left: tuple[Layout, ...],
        rank: int,
        parts: bool,
    ) -> float:
        """`parts`: the node becomes several instructions; then what comes in or what goes out is there at least."""
        read = {
            (name, layout): self._of(name, layout, phase, rank)
            for name, layout in zip(node.inputs, wanted, strict=True)
            if name and layout is not None and name not in self._kept
        }
        kept = zip(node.outputs, left, strict=True)
        written = sum(self._of(name, layout, phase, rank) for name, layout in kept if name not in self._kept)
        if parts:
            return max(sum(read.values()), written)
        return sum(read.values()) + written + self._space(node, phase, wanted, rank)

    def _space(self, node: Node, phase: Phase, wanted: tuple[Layout | None, ...], rank: int) -> int:
        scratch = operator(node.op).scratch
        if scratch is None:
            return 0
        shapes = []
        for name, layout in zip(node.inputs, wanted, strict=True):
            shape = self.graph.types[name].sized(phase.sizes) if name and layout is not None else ()
            shapes.append(
                layout.bind(shape, self.mesh).local_shape(shape, rank, self.mesh) if layout is not None else shape
            )
        return scratch(shapes, np.dtype(self.graph.types[node.inputs[0]].dtype).itemsize)

    def _of(self, name: str, layout: Layout, phase: Phase, rank: int) -> float:
        type_ = self.graph.types[name]
        return self._bytes(layout, type_.sized(phase.sizes), type_.dtype, rank)

    def _bytes(self, layout: Layout, shape: tuple[int, ...], dtype: str, rank: int) -> float:
        found = self.problem.prices.bytes(layout.bind(shape, self.mesh), shape, dtype)
        return float(np.broadcast_to(found, self.mesh.size)[rank])
