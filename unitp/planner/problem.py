"""The planning problem: one variable per choice, its own price, and a price for every pair of neighbours.

    minimise   sum_p weight_p * ( sum_n work(n, a_n) + sum_(u -> v) convert(out(u, a_u), in(v, a_v)) )  +  sum_w held(w, l_w)

A variable is a node's assignment `a_n`, the layout of a value that several nodes read (so that a conversion they share is
paid once), of an input, of an output (never partial), of a parameter or of a state. Parameters, states and nodes that
depend on parameters alone have one variable for all phases; everything else one per phase. Equal tables are built once:
thirty equal layers cost as much as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.graph.graph import Dim, Graph, Node, TensorType
from unitp.graph.ops import layouts
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.candidates import Assignment, Candidates
from unitp.planner.memo import Memo
from unitp.planner.price import Prices
from unitp.plans import Phase
from unitp.program.memory import VIEWS

Table = npt.NDArray[np.float64]
Sides = tuple[tuple[Layout | None, ...], tuple[Layout, ...]]
"""The layouts in which a node wants its inputs and leaves its outputs."""

SHARED = ""
"""The phase name of variables that all phases share."""


class Variable(msgspec.Struct, frozen=True):
    """`kind`: node, value, input, output, parameter or state. A node chooses among assignments, all else among layouts."""

    kind: str
    name: str
    phase: str
    assignments: tuple[Assignment, ...] = ()
    layouts: tuple[Layout, ...] = ()


class Problem:
    """Variables with `unary` prices and `pairs` of tables, ready for `unitp.planner.elimination`."""

    def __init__(
        self, graph: Graph, mesh: Mesh, phases: Sequence[Phase], candidates: Candidates, prices: Prices
    ) -> None:
        self.graph, self.mesh, self.phases, self.candidates, self.prices = graph, mesh, phases, candidates, prices
        self.variables: list[Variable] = []
        self.unary: list[Table] = []
        self.pairs: dict[tuple[int, int], Table] = {}
        self.index: dict[tuple[str, str, str], int] = {}
        self._assignments: dict[tuple[str, str], tuple[Assignment, ...]] = {}
        self._sides: dict[tuple[str, str], list[Sides]] = {}
        self._known: dict[bytes, tuple[tuple[Assignment, ...], list[Sides]]] = {}
        self._tables: dict[object, Table] = {}
        self.memo = Memo()
        self._producers = {value: (n.name, place) for n in graph.nodes for place, value in enumerate(n.outputs)}
        self.static = _static(graph)
        self.kept = _kept(graph, self.static)
        self._weight = sum(p.weight for p in phases)
        self.consumers = _consumers(graph)
        self._build()

    def seconds(self, choice: Sequence[int]) -> dict[str, float]:
        """What one call of each phase costs under a choice of every variable."""
        weight = {p.name: p.weight for p in self.phases}
        total = dict.fromkeys(weight, 0.0)
        for variable, table, chosen in zip(self.variables, self.unary, choice, strict=True):
            if variable.phase != SHARED:
                total[variable.phase] += float(table[chosen])
        for (a, b), table in self.pairs.items():
            home = self.variables[a].phase or self.variables[b].phase
            if home != SHARED:
                total[home] += float(table[choice[a], choice[b]])
        return {name: value / weight[name] for name, value in total.items()}

    # building

    def _build(self) -> None:
        for node in self.graph.nodes:
            for phase in self.phases[: 1 if node.name in self.static else None]:
                self._prepare(node, SHARED if node.name in self.static else phase.name, phase.sizes)
        for parameter in self.graph.parameters:
            self._held("parameter", parameter.name, parameter.type)
        for state in self.graph.states:
            self._held("state", state.input, state.type)
        self._nodes(SHARED, [n for n in self.graph.nodes if n.name in self.static], self.phases[0])
        for phase in self.phases:
            for name, type_ in self.graph.inputs.items():
                self._variable(Variable("input", name, phase.name, layouts=self._layouts_of(name, type_, [phase.name])))
            self._nodes(phase.name, [n for n in self.graph.nodes if n.name not in self.static], phase)
            self._ends(phase)
            self.unary[-1] = self.unary[-1] + phase.weight * self.prices.program_s  # whatever is chosen

    def _prepare(self, node: Node, phase: str, sizes: Mapping[str, int]) -> None:
        """The assignments of a node, with the layouts that each means."""
        rule = self.candidates.rules[node.name]
        splits = tuple(tuple(self.candidates.splits.get((node.name, f), ())) for f in rule.factors)
        bools = self.graph.types[node.name].dtype == "bool"
        key = (rule, splits, node.op, phase, bools)
        signature = msgspec.msgpack.encode(key)
        if signature not in self._known:
            assignments = tuple(self.candidates.of(node, sizes))
            self._known[signature] = (assignments, [layouts(rule, dict(a)) for a in assignments])
        self._assignments[node.name, phase], self._sides[node.name, phase] = self._known[signature]

    def _variable(self, made: Variable) -> int:
        number = len(self.variables)
        self.variables.append(made)
        self.unary.append(self._zeros(len(made.assignments or made.layouts)))
        self.index[made.kind, made.name, made.phase] = number
        return number

    def _zeros(self, count: int) -> Table:
        return self._tables.setdefault(("zeros", count), np.zeros(count))

    def _held(self, kind: str, name: str, type_: TensorType) -> None:
        """A parameter or state: any layout that a reader wants, at the price of the bytes held."""
        phase = max(self.phases, key=lambda p: prod(_sized(type_, p)))
        number = self._variable(
            Variable(kind, name, SHARED, layouts=self._layouts_of(name, type_, [p.name for p in self.phases]))
        )
        sizes = _sized(type_, phase)
        key = ("held", sizes, type_.dtype, self.variables[number].layouts)
        if key not in self._tables:
            held = [self.prices.held(lay, sizes, type_.dtype) for lay in self.variables[number].layouts]
            self._tables[key] = np.array(held) * self._weight
        self.unary[number] = self._tables[key]

    def _layouts_of(self, name: str, type_: TensorType, phases: Sequence[str]) -> tuple[Layout, ...]:
        """The layouts in which the readers of a value in these phases want it, and the replicated one.

        What comes from outside is never partial: who wants a bias so (added once, not on every rank) masks it.
        """
        found = {Layout.replicated(len(type_.shape)): None}
        for node, operand in self.consumers.get(name, ()):
            for phase in phases if node.name not in self.static else [SHARED]:
                found |= dict.fromkeys(self._wanted(node, operand, phase))
        return tuple(found if name in self._producers else dict.fromkeys(Layout(lay.dims) for lay in found))

    def _wanted(self, node: Node, operand: int, phase: str) -> tuple[Layout, ...]:
        """The layouts in which a node wants an input, by its assignments."""
        return tuple(layout for wanted, _ in self._sides[node.name, phase] if (layout := wanted[operand]) is not None)

    def _nodes(self, phase_name: str, nodes: Sequence[Node], phase: Phase) -> None:
        for node in nodes:
            number = self._variable(Variable("node", node.name, phase_name, self._assignments[node.name, phase_name]))
            if phase_name != SHARED:
                self.unary[number] = self.memo.times(self._work(node, phase), phase.weight)
            for value in dict.fromkeys(filter(None, node.inputs)):
                self._connect(value, node, number, phase, phase_name)
            for place, value in enumerate(node.outputs):
                if phase_name == SHARED and value in self.kept and node.op not in VIEWS:
                    self._held("value", value, self.graph.types[value])
                elif phase_name != SHARED and self._readers(value) > 1:
                    self._fan_out(node, place, value, number, phase)

    def _readers(self, value: str) -> int:
        """How many want a value: nodes, the caller, states that it replaces."""
        nodes = {reader.name for reader, _ in self.consumers.get(value, ())}
        return len(nodes) + (value in self.graph.outputs) + sum(s.output == value for s in self.graph.states)

    def _fan_out(self, node: Node, place: int, value: str, producer: int, phase: Phase) -> None:
        """The layout in which a value with several readers is held: a variable of its own."""
        left = tuple(side[1][place] for side in self._sides[node.name, phase.name])
        choices = dict.fromkeys(left) | dict.fromkeys(self._layouts_of(value, self.graph.types[value], [phase.name]))
        if value in self.graph.outputs:
            choices |= dict.fromkeys(Layout(lay.dims) for lay in left)
        for state in (s for s in self.graph.states if s.output == value):
            choices |= dict.fromkeys(self.variables[self.index["state", state.input, SHARED]].layouts)
        number = self._variable(Variable("value", value, phase.name, layouts=tuple(choices)))
        self._pair(producer, number, self._conversions(value, left, tuple(choices), phase), phase.weight)

    def _connect(self, value: str, node: Node, number: int, phase: Phase, home: str) -> None:
        """The price of a value to a node that reads it, once where two operands want it in the same layout."""
        source, left = self.source(value, phase.name)
        fixed = self.variables[source].phase == SHARED and self.variables[source].kind != "state"
        if fixed and home == SHARED and not (node.op in VIEWS and self.kept.intersection(node.outputs)):
            return  # a copy that is let go once the node has run, at load
        before: list[tuple[Layout, ...]] = []
        for wanted in dict.fromkeys(self._wanted(node, n, home) for n, name in enumerate(node.inputs) if name == value):
            # what follows from parameters is converted once, at load: it costs a second copy held
            table = self._copies(value, left, wanted) if fixed else self._conversions(value, left, wanted, phase)
            if before:
                table = table * [all(w != b[n] for b in before) for n, w in enumerate(wanted)]
            self._pair(source, number, table, self._weight if fixed else phase.weight)
            before.append(wanted)

    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """The variable that decides in which layout `value` is found, and that layout for each of its choices."""
        homes = ("value", phase), ("value", SHARED), ("input", phase), ("parameter", SHARED), ("state", SHARED)
        for kind, name in homes:
            if (number := self.index.get((kind, value, name))) is not None:
                return number, self.variables[number].layouts
        producer, place = self._producers[value]
        shared = SHARED if producer in self.static else phase
        return self.index["node", producer, shared], tuple(side[1][place] for side in self._sides[producer, shared])

    def _ends(self, phase: Phase) -> None:
        """Outputs are left in any layout that is not partial; states in the layout in which they are read.

        An output that has a layout of its own already, since others read it too, is left in that one, its sums taken.
        """
        for value in self.graph.outputs:
            source, left = self.source(value, phase.name)
            whole = tuple(Layout(lay.dims) for lay in left)
            choices = tuple(dict.fromkeys(whole))
            if self.variables[source].phase == SHARED and self.variables[source].kind != "state":
                self._pair(source, source, self._copies(value, left, whole), self._weight)
            elif self.variables[source].kind != "node":
                self._pair(source, source, self._conversions(value, left, whole, phase), phase.weight)
            else:
                number = self._variable(Variable("output", value, phase.name, layouts=choices))
                self._pair(source, number, self._conversions(value, left, choices, phase), phase.weight)
        for state in self.graph.states:
            source, left = self.source(state.output, phase.name)
            number, held = self.source(state.input, phase.name)
            self._pair(source, number, self._conversions(state.output, left, held, phase), phase.weight)

    # prices

    def _work(self, node: Node, phase: Phase) -> Table:
        types = [self._typed(n, phase) if n else None for n in node.inputs]
        attrs = msgspec.msgpack.encode(node.attrs)
        assignments = self._assignments[node.name, phase.name]
        key = ("work", node.op, attrs, tuple(types), assignments, phase.name)
        if key not in self._tables:
            self._tables[key] = self.prices.work(node, phase.sizes, types, assignments)
        return self._tables[key]

    def _typed(self, name: str, phase: Phase) -> TensorType:
        return TensorType(self.graph.types[name].dtype, _sized(self.graph.types[name], phase))

    def _conversions(self, value: str, left: tuple[Layout, ...], wanted: tuple[Layout, ...], phase: Phase) -> Table:
        type_ = self.graph.types[value]
        shape = _sized(type_, phase)
        key = ("convert", shape, type_.dtype, left, wanted)
        if key not in self._tables:
            self._tables[key] = self.prices.conversions(shape, type_.dtype, left, wanted)
        return self._tables[key]

    def _copies(self, value: str, left: tuple[Layout, ...], wanted: tuple[Layout, ...]) -> Table:
        type_ = self.graph.types[value]
        shape = _sized(type_, self.phases[0])
        key = ("copy", shape, type_.dtype, left, wanted)
        if key not in self._tables:
            held = [self.prices.held(lay, shape, type_.dtype) for lay in wanted]
            self._tables[key] = np.array(
                [[0.0 if a == b else h for b, h in zip(wanted, held, strict=True)] for a in left]
            )
        return self._tables[key]

    def _pair(self, a: int, b: int, table: Table, weight: float) -> None:
        table = self.memo.times(table, weight)
        if a > b:
            a, b, table = b, a, self.memo.turned(table)
        if a == b:
            self.unary[a] = self.memo.add(self.unary[a], self.memo.make("diagonal", (table,), table.diagonal))
            return
        have = self.pairs.get((a, b))
        self.pairs[a, b] = table if have is None else self.memo.add(have, table)


def _sized(type_: TensorType, phase: Phase) -> tuple[int, ...]:
    def size(dim: Dim) -> int:
        return phase.sizes[dim] if isinstance(dim, str) else dim

    return tuple(size(d) for d in type_.shape)


def _static(graph: Graph) -> set[str]:
    """The nodes that depend on parameters alone; they run once, when parameters are loaded."""
    known = {p.name for p in graph.parameters}
    found = set()
    for node in graph.nodes:
        if all(name in known for name in node.inputs if name):
            found.add(node.name)
            known |= set(node.outputs)
    return found


def _kept(graph: Graph, static: set[str]) -> set[str]:
    """What of static nodes is held between calls: read by one as it is or through views, or an output."""
    found = {*graph.outputs, *(s.output for s in graph.states)}
    for node in reversed(graph.nodes):
        if node.name not in static or (node.op in VIEWS and found.intersection(node.outputs)):
            found |= set(node.inputs)
    return found


def _consumers(graph: Graph) -> dict[str, list[tuple[Node, int]]]:
    found: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for operand, name in enumerate(node.inputs):
            if name:
                found.setdefault(name, []).append((node, operand))
    return found
