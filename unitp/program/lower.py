"""Lowering turns a plan into a program: operators with their splits, and conversions between layouts as instructions.

The rule of a node and the plan's splits give the required layouts of its inputs. A value is converted from its produced
layout to each required layout once, however many nodes read it. Nodes whose inner factor is split expand into ordinary
nodes first. Sizes are bound here: a program is for one set of sizes, and for all ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec

from unitp.errors import InputError, PlanError
from unitp.graph.graph import Graph
from unitp.graph.ops import infer, layouts, operator, rule_of
from unitp.graph.ops.expansions import expand
from unitp.graph.values import Dim, Node, TensorType, held_as
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.plans import PhasePlan, Plan
from unitp.program.convert import steps
from unitp.program.instructions import Instruction, Local, Program, Value

Splits = Mapping[str, Split]


def lower(
    graph: Graph,
    plan: Plan,
    phase: str,
    sizes: Mapping[str, int] | None = None,
    outputs: tuple[str, ...] | None = None,
    dtype: str = "float32",
) -> Program:
    """Return the program of `graph` under `plan` for these sizes (default: the phase's) and `outputs` (default: all).

    `dtype="float64"` widens every float32 tensor. Raises PlanError if the plan is not for this graph or has no such phase, and
    InputError if `sizes` lacks a symbol of the graph.
    """
    if plan.graph != graph.hash:
        raise PlanError(
            f"the plan was made for another graph ({plan.graph}, this is {graph.hash})", hint="Plan this model anew."
        )
    found = plan.phase(phase)
    bound = dict(sizes if sizes is not None else found.phase.sizes)
    if missing := [s for s in graph.symbols if s not in bound]:
        raise InputError(f"no size is given for {', '.join(missing)}")
    wanted = tuple(graph.outputs if outputs is None else outputs)
    return _Lowering(graph, plan, found, bound, dtype).run(wanted)


class _Lowering:
    """One pass over the graph. `held` has the produced layout of each graph value, `values` all values of the program."""

    def __init__(self, graph: Graph, plan: Plan, phase: PhasePlan, sizes: dict[str, int], dtype: str) -> None:
        self.graph, self.plan, self.phase, self.sizes, self.dtype = graph, plan, phase, sizes, dtype
        self.mesh: Mesh = plan.mesh
        self.values: dict[str, Value] = {}
        self.held: dict[str, str] = {}
        self.converted: dict[tuple[str, Layout], str] = {}
        self.copies: dict[str, int] = {}
        self.instructions: list[Instruction] = []

    def run(self, outputs: tuple[str, ...]) -> Program:
        nodes = list(self.graph.pruned(outputs))
        read = {name for node in nodes for name in node.inputs} | set(outputs)
        inputs = tuple(name for name in self.graph.inputs if name in read)
        parameters = tuple(p.name for p in self.graph.parameters if p.name in read)
        for name in inputs:
            self.hold(name, self.graph.inputs[name], self.phase.values.get(name))
        for name in parameters:
            self.hold(name, self.graph.parameter(name).type, self.plan.parameters[name])
        for state in self.graph.states:
            self.hold(state.input, state.type, self.plan.states[state.input])
        for node in nodes:
            self.node(self.concrete(node))
        states = tuple((s.input, self.converted_to(s.output, self.values[s.input].layout)) for s in self.graph.states)
        results = tuple(self.converted_to(name, self.whole(name)) for name in outputs)
        return Program(
            graph=self.graph.hash,
            mesh=self.mesh,
            phase=self.phase.phase.name,
            sizes=self.sizes,
            values=self.values,
            inputs=inputs,
            parameters=parameters,
            states=states,
            outputs=results,
            instructions=tuple(self.instructions),
        )

    # values and their layouts

    def hold(self, name: str, type_: TensorType, layout: Layout | None) -> None:
        """Define a value that comes from outside, in `layout` (default: replicated)."""
        concrete = self.type(type_)
        shape = tuple(int(d) for d in concrete.shape)
        at = (layout or Layout.replicated(len(shape))).bind(shape, self.mesh)
        self.define(name, concrete.dtype, shape, at)

    def define(self, name: str, dtype: str, shape: tuple[int, ...], layout: Layout) -> None:
        self.values[name] = Value(dtype, shape, layout)
        self.held[name] = name

    def converted_to(self, name: str, layout: Layout) -> str:
        """Return the name of value `name` in `layout`. The conversion is added if no node needed it before."""
        source = self.held[name]
        if self.values[source].layout == layout:
            return source
        if (name, layout) not in self.converted:
            self.converted[name, layout] = self.convert(name, source, layout)
        return self.converted[name, layout]

    def convert(self, name: str, source: str, layout: Layout) -> str:
        for instruction, at in steps(self.values[source].layout, layout, self.mesh):
            if (name, at) in self.converted:
                source = self.converted[name, at]
                continue
            self.copies[name] = self.copies.get(name, 0) + 1
            target = f"{name}@{self.copies[name]}"
            self.values[target] = Value(self.values[source].dtype, self.values[source].shape, at)
            self.instructions.append(msgspec.structs.replace(instruction, input=source, output=target))
            self.converted[name, at] = source = target
        return source

    def whole(self, name: str) -> Layout:
        """Return the layout of an output: as it is produced, but not partial."""
        layout = self.values[self.held[name]].layout
        return Layout(layout.dims) if layout.partial else layout

    # nodes

    def type(self, type_: TensorType) -> TensorType:
        return TensorType(held_as(type_.dtype, self.dtype), tuple(self.size(d) for d in type_.shape))

    def size(self, dim: Dim) -> int:
        return self.sizes[dim] if isinstance(dim, str) else dim

    def concrete(self, node: Node) -> Node:
        """Return the node with its symbols bound and, in the float64 mode, its casts widened."""
        found = node.bound(self.sizes)
        if found.attrs.get("to") == "float32":
            return msgspec.structs.replace(found, attrs={**found.attrs, "to": self.dtype})
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[self.held[name]].shape

    def node(self, node: Node) -> None:
        rule = rule_of(node.op, node.attrs, [self.shape(n) if n else None for n in node.inputs])
        planned = self.phase.nodes.get(node.name, {})
        if strange := [f for f in planned if f not in rule.factors]:
            raise PlanError(f"the plan splits {', '.join(strange)} of {node}, which has {', '.join(rule.factors)}")
        splits: Splits = {f: split.bind(int(rule.factors[f].size), self.mesh) for f, split in planned.items()}
        if not any(rule.factors[f].kind == "inner" for f in splits):
            self.emit(node, splits)
        else:
            for part in expand(node, self.shape(node.inputs[0])):
                if operator(part.op).candidates:
                    splits = self.pick(part, splits)
                else:
                    self.emit(part, splits)
        for name in node.outputs:
            if (layout := self.phase.values.get(name)) is not None:
                self.held[name] = self.converted_to(name, layout.bind(self.shape(name), self.mesh))

    def emit(self, node: Node, splits: Splits, shapes: tuple[tuple[int, ...], ...] | None = None) -> None:
        """Append a local operator, after the conversions of its inputs. `shapes` are those of outputs that cannot be inferred."""
        rule = rule_of(node.op, node.attrs, [self.shape(n) if n else None for n in node.inputs], shapes)
        own = {f: s for f, s in splits.items() if f in rule.factors and _splits(s, int(rule.factors[f].size))}
        required, produced = layouts(rule, own)
        inputs = tuple(self.converted_to(n, w) if n and w else n for n, w in zip(node.inputs, required, strict=True))
        known = {n: TensorType(self.values[self.held[n]].dtype, self.shape(n)) for n in node.inputs if n}
        types = infer(node, known)
        for number, (name, type_, layout) in enumerate(zip(node.outputs, types, produced, strict=True)):
            shape = shapes[number] if shapes else tuple(int(d) for d in type_.shape)
            self.define(name, type_.dtype, shape, layout)
        self.instructions.append(Local(node.op, inputs, node.outputs, node.attrs, own))

    def pick(self, node: Node, splits: Splits) -> Splits:
        """Append the selection of candidates, each rank's from its own part. Return the splits of the operators that follow."""
        shape, rows = self.shape(node.inputs[0]), splits["v"]
        attrs = operator(node.op).attributes(node.attrs)
        counts = [min(attrs.whole("k"), b - a) for a, b in rows.intervals]
        edges = [sum(counts[:i]) for i in range(len(counts) + 1)]
        candidates, dim = Split(rows.axes, tuple(itertools.pairwise(edges))), attrs.dim(len(shape))
        out = (*shape[:dim], edges[-1], *shape[dim + 1 :])
        self.emit(node, {**splits, "c": candidates}, (out, out))
        return {f: s for f, s in splits.items() if f != "v"}


def _splits(split: Split, rows: int) -> bool:
    """Say whether a split divides this number of rows. Part of an expanded operator may have a single row along the reduced dim."""
    return max(stop for _, stop in split.intervals) == rows
