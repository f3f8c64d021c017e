"""The planning problem: one variable per choice, its own price, and a price for every pair of neighbours.

    minimise   sum_p weight_p * ( sum_n work(n, a_n) + sum_(u -> v) convert(out(u, a_u), in(v, a_v)) )  +  sum_w held(w, l_w)

A variable is a node's assignment `a_n`, the layout of a value that several nodes read (so that a conversion they share is
paid once), of an input, of an output (never partial), of a parameter or of a state. Parameters, states and nodes that
depend on parameters alone have one variable for all phases; everything else one per phase. Equal tables are built once:
thirty equal layers cost as much as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.graph.graph import Dim, Graph, Node, TensorType
from unitp.graph.ops import layouts
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.candidates import Assignment, Candidates
from unitp.planner.price import Prices
from unitp.plans import Phase

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
        self._assignments: dict[str, tuple[Assignment, ...]] = {}
        self._sides: dict[str, list[Sides]] = {}
        self._known: dict[bytes, tuple[tuple[Assignment, ...], list[Sides]]] = {}
        self._tables: dict[object, Table] = {}
        self._producers = {value: (n.name, place) for n in graph.nodes for place, value in enumerate(n.outputs)}
        self.static = _static(graph)
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
            self._prepare(node)
        for parameter in self.graph.parameters:
            self._held("parameter", parameter.name, parameter.type)
        for state in self.graph.states:
            self._held("state", state.input, state.type)
        self._nodes(SHARED, [n for n in self.graph.nodes if n.name in self.static], self.phases[0])
        for phase in self.phases:
            for name, type_ in self.graph.inputs.items():
                self._variable(Variable("input", name, phase.name, layouts=self._layouts_of(name, type_)))
            self._nodes(phase.name, [n for n in self.graph.nodes if n.name not in self.static], phase)
            self._ends(phase)
            self.unary[-1] = self.unary[-1] + phase.weight * self.prices.program_s  # whatever is chosen

    def _prepare(self, node: Node) -> None:
        rule = self.candidates.rules[node.name]
        key = (rule, tuple(tuple(self.candidates.splits.get((node.name, f), ())) for f in rule.factors), node.op)
        signature = msgspec.msgpack.encode(key)
        if signature not in self._known:
            assignments = tuple(self.candidates.of(node))
            self._known[signature] = (assignments, [layouts(rule, dict(a)) for a in assignments])
        self._assignments[node.name], self._sides[node.name] = self._known[signature]

    def _variable(self, made: Variable) -> int:
        number = len(self.variables)
        self.variables.append(made)
        self.unary.append(np.zeros(len(made.assignments or made.layouts)))
        self.index[made.kind, made.name, made.phase] = number
        return number

    def _held(self, kind: str, name: str, type_: TensorType) -> None:
        """A parameter or state: any layout that a reader wants, at the price of the bytes held."""
        phase = max(self.phases, key=lambda p: max(p.sizes.values(), default=0))
        number = self._variable(Variable(kind, name, SHARED, layouts=self._layouts_of(name, type_)))
        sizes = _sized(type_, phase)
        held = [self.prices.held(lay, sizes, type_.dtype) for lay in self.variables[number].layouts]
        self.unary[number] = np.array(held) * sum(p.weight for p in self.phases)

    def _layouts_of(self, name: str, type_: TensorType) -> tuple[Layout, ...]:
        """The layouts in which the readers of a value want it, and the replicated one."""
        found = {Layout.replicated(len(type_.shape)): None}
        for node, operand in self.consumers.get(name, ()):
            found |= dict.fromkeys(self._wanted(node, operand))
        return tuple(found)

    def _wanted(self, node: Node, operand: int) -> tuple[Layout, ...]:
        """The layouts in which a node wants an input, by its assignments."""
        return tuple(layout for wanted, _ in self._sides[node.name] if (layout := wanted[operand]) is not None)

    def _nodes(self, phase_name: str, nodes: Sequence[Node], phase: Phase) -> None:
        for node in nodes:
            number = self._variable(Variable("node", node.name, phase_name, self._assignments[node.name]))
            self.unary[number] = self._work(node, phase) * phase.weight * (phase_name != SHARED)
            for operand, value in enumerate(node.inputs):
                if value:
                    self._connect(value, node, operand, number, phase)
            for place, value in enumerate(node.outputs):
                readers = {reader.name for reader, _ in self.consumers.get(value, ())}
                if len(readers) + (value in self.graph.outputs) > 1 and phase_name != SHARED:
                    self._fan_out(node, place, value, number, phase)

    def _fan_out(self, node: Node, place: int, value: str, producer: int, phase: Phase) -> None:
        """The layout in which a value with several readers is held: a variable of its own."""
        made = {side[1][place]: None for side in self._sides[node.name]}
        choices = tuple(made | dict.fromkeys(self._layouts_of(value, self.graph.types[value])))
        number = self._variable(Variable("value", value, phase.name, layouts=choices))
        left = tuple(side[1][place] for side in self._sides[node.name])
        self._pair(producer, number, self._conversions(value, left, choices, phase), phase.weight)

    def _connect(self, value: str, node: Node, operand: int, number: int, phase: Phase) -> None:
        source, left = self.source(value, phase.name)
        wanted = self._wanted(node, operand)
        if self.variables[source].kind == "parameter" or self.variables[source].name in self.static:
            # converted once, at load: what it costs is a second copy held
            self._pair(source, number, self._copies(value, left, wanted), sum(p.weight for p in self.phases))
        else:
            self._pair(source, number, self._conversions(value, left, wanted, phase), phase.weight)

    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """The variable that decides in which layout `value` is found, and that layout for each of its choices."""
        for kind, name in (("value", phase), ("input", phase), ("parameter", SHARED), ("state", SHARED)):
            if (number := self.index.get((kind, value, name))) is not None:
                return number, self.variables[number].layouts
        producer, place = self._producers[value]
        shared = SHARED if producer in self.static else phase
        return self.index["node", producer, shared], tuple(side[1][place] for side in self._sides[producer])

    def _ends(self, phase: Phase) -> None:
        """Outputs are left in any layout that is not partial; states in the layout in which they are read."""
        for value in self.graph.outputs:
            source, left = self.source(value, phase.name)
            choices = tuple(dict.fromkeys(Layout(lay.dims) for lay in left))
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
        key = ("work", node.op, attrs, tuple(types), self._assignments[node.name], phase.name)
        if key not in self._tables:
            self._tables[key] = self.prices.work(node, phase.sizes, types, self._assignments[node.name])
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
        if a > b:
            a, b, table = b, a, table.T
        if a == b:
            self.unary[a] = self.unary[a] + weight * np.diagonal(table)
            return
        have = self.pairs.get((a, b))
        self.pairs[a, b] = weight * table if have is None else have + weight * table


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


def _consumers(graph: Graph) -> dict[str, list[tuple[Node, int]]]:
    found: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for operand, name in enumerate(node.inputs):
            if name:
                found.setdefault(name, []).append((node, operand))
    return found
