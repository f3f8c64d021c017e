"""Lower bounds on the bytes that a rank needs, as tables by the choices of a planning problem.

    held    parameters, states and the copies that one phase makes of parameters, by the layouts chosen
    need    of a node while it runs: its inputs in the required layouts, its outputs in the produced ones, its scratch space

The peak of a rank is at least held + the need of any node of that phase. What else is alive meanwhile (a residual, the source of
a conversion) is known only from the lowered program (`unitp.program.memory`), which decides in the end whether a plan fits.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from unitp.graph.analysis import is_view
from unitp.graph.ops import operator
from unitp.graph.values import Node, item_bytes
from unitp.layout import Layout
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED
from unitp.planner.solve.elimination import Table
from unitp.planner.solve.integer_programs import Row
from unitp.plans import Phase


class Footprint:
    """Builds the tables of bytes for any rank; equal layers share tables."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.graph, self.mesh, self.phases = problem.graph, problem.mesh, problem.phases
        self._tables: dict[object, Table] = {}
        self._held: dict[tuple[int, str], Row] = {}
        self._needs: dict[tuple[int, str], dict[int, Table]] = {}
        self._nodes = {node.name: node for node in self.graph.nodes}
        self._views = {name for node in self.graph.nodes if is_view(node) for name in node.outputs}
        self._parameters = {p.name for p in self.graph.parameters}
        self._kept = (
            {*self.graph.origins} | {s.input for s in self.graph.states} | {s.output for s in self.graph.states}
        )

    def held(self, rank: int, phase: str) -> Row:
        """Return the bytes that a rank holds between calls for a phase; a copy that readers could share is divided among them."""
        if (rank, phase) not in self._held:
            unary: dict[int, Table] = {}
            for i, variable in enumerate(self.problem.variables):
                if variable.kind in ("parameter", "state"):
                    unary[i] = self._most(variable.name, variable.layouts, rank)
            pairs: dict[tuple[int, int], Table] = {}
            made = [c for c in self.problem.copied if self.problem.variables[c.reader].phase in (phase, SHARED)]
            shares = Counter(copied.value for copied in made)
            for copied in made:
                table = self._copy(copied.value, copied.produced, copied.required, shares[copied.value], rank)
                key = (min(copied.source, copied.reader), max(copied.source, copied.reader))
                turned = table if copied.source < copied.reader else self._turned(table)
                pairs[key] = pairs[key] + turned if key in pairs else turned
            self._held[rank, phase] = Row(unary, pairs)
        return self._held[rank, phase]

    def needs(self, rank: int, phase: str) -> dict[int, Table]:
        """Return the bytes that each node of a phase needs at least while it runs: a table by assignment for each variable."""
        if (rank, phase) not in self._needs:
            sizes = next(p for p in self.phases if p.name == phase)
            nodes = [(i, v) for i, v in enumerate(self.problem.variables) if v.kind == "node" and v.phase == phase]
            self._needs[rank, phase] = {i: self._need(self._nodes[v.name], sizes, rank) for i, v in nodes}
        return self._needs[rank, phase]

    def least_need(self, rank: int, phase: str) -> float:
        """Return the bytes that some node of a phase needs under every choice."""
        return max((float(table.min()) for table in self.needs(rank, phase).values()), default=0.0)

    def _turned(self, table: Table) -> Table:
        return self._tables.setdefault(("turned", id(table)), table.T)

    def _most(self, name: str, layouts: tuple[Layout, ...], rank: int) -> Table:
        """Return the bytes of a parameter or state in each layout, in the phase in which it is largest."""
        type_ = self.graph.types[name]
        shapes = dict.fromkeys(type_.sized(phase.sizes) for phase in self.phases)
        key = ("most", tuple(shapes), type_.dtype, layouts, rank)
        if key not in self._tables:
            rows = [[self._bytes(lay, shape, type_.dtype, rank) for lay in layouts] for shape in shapes]
            self._tables[key] = np.array(rows, float).max(axis=0)
        return self._tables[key]

    def _copy(
        self, value: str, produced: tuple[Layout, ...], required: tuple[Layout, ...], share: int, rank: int
    ) -> Table:
        """Return the bytes of the copy that a reader adds: none if it reads a parameter, or a view of one, as it is held."""
        type_ = self.graph.types[value]
        shape = type_.sized(self.phases[0].sizes)
        free = value in self._parameters or value in self._views
        key = ("copy", shape, type_.dtype, produced, required, share, free, rank)
        if key not in self._tables:
            made = [self._bytes(lay, shape, type_.dtype, rank) / share for lay in required]
            rows = [[0.0 if free and a == b else m for b, m in zip(required, made, strict=True)] for a in produced]
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
        required: tuple[Layout | None, ...],
        produced: tuple[Layout, ...],
        rank: int,
        parts: bool,
    ) -> float:
        """Return the bytes that a node needs under one assignment.

        parts   the node becomes several instructions: then only its inputs, or only its outputs, are known to be alive at once
        """
        read = {
            (name, layout): self._of(name, layout, phase, rank)
            for name, layout in zip(node.inputs, required, strict=True)
            if name and layout is not None and name not in self._kept
        }
        kept = zip(node.outputs, produced, strict=True)
        written = sum(self._of(name, layout, phase, rank) for name, layout in kept if name not in self._kept)
        if parts:
            return max(sum(read.values()), written)
        return sum(read.values()) + written + self._space(node, phase, required, rank)

    def _space(self, node: Node, phase: Phase, required: tuple[Layout | None, ...], rank: int) -> int:
        scratch = operator(node.op).scratch
        if scratch is None:
            return 0
        shapes = []
        for name, layout in zip(node.inputs, required, strict=True):
            shape = self.graph.types[name].sized(phase.sizes) if name and layout is not None else ()
            shapes.append(
                layout.bind(shape, self.mesh).local_shape(shape, rank, self.mesh) if layout is not None else shape
            )
        return scratch(shapes, item_bytes(self.graph.types[node.inputs[0]].dtype))

    def _of(self, name: str, layout: Layout, phase: Phase, rank: int) -> float:
        type_ = self.graph.types[name]
        return self._bytes(layout, type_.sized(phase.sizes), type_.dtype, rank)

    def _bytes(self, layout: Layout, shape: tuple[int, ...], dtype: str, rank: int) -> float:
        found = self.problem.prices.bytes(layout.bind(shape, self.mesh), shape, dtype)
        return float(np.broadcast_to(found, self.mesh.size)[rank])
