"""What a planning problem is about, and the prices that are read off the graph: the variables, and what each choice costs.

A variable is the assignment `a_n` of a node, or the layout of a parameter, a state, an input, an output (never partial), or a
value that several nodes read (so that a conversion they share is paid once). Parameters, states and nodes that depend on
parameters alone have one variable for all phases; everything else has one per phase. Equal tables are built once: thirty
equal layers cost as much as one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.graph.analysis import consumers_of, is_view, kept_values, static_nodes
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts
from unitp.graph.values import Node, TensorType
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import Assignment, Candidates
from unitp.planner.prices.work import Prices
from unitp.planner.problem.held_bytes import Holding
from unitp.planner.problem.priced_tables import PricedTables
from unitp.planner.problem.shared_conversions import Shared, repeated
from unitp.planner.problem.variables import SHARED, Copied, Variable
from unitp.planner.solve.identity_cache import Memo
from unitp.plans import Phase

Table = npt.NDArray[np.float64]
Pairs = dict[tuple[int, int], Table]
Sides = tuple[tuple[Layout | None, ...], tuple[Layout, ...]]
"""The layouts that a node requires of its inputs (`required`) and produces for its outputs (`produced`)."""

MOST_CHOICES = 400
"""A variable that would have more choices with copies gets none."""


class Structure:
    """The variables of a problem, and the tables that price their choices: of seconds (`unary`, `pairs`), and of bytes (`holding`).

    The tables are complete once the structure is made; `unitp.planner.problem.problem.posed` hands them to a problem. `copies`
    maps a variable (kind, name, phase) to the number of converted copies that it may itself decide to make, for all readers that
    require them.
    """

    def __init__(
        self,
        graph: Graph,
        mesh: Mesh,
        phases: Sequence[Phase],
        candidates: Candidates,
        prices: Prices,
        *,
        copies: Mapping[tuple[str, str, str], int] | None = None,
    ) -> None:
        self.copies = copies or {}
        self.shared: list[Shared] = []
        self._repeated: tuple[tuple[int, ...], list[tuple[int, str, float]]] = (), []
        self.graph, self.mesh, self.phases, self.candidates, self.prices = graph, mesh, phases, candidates, prices
        self.variables: list[Variable] = []
        self.unary: list[Table] = []
        self.pairs: dict[tuple[int, int], Table] = {}
        self.index: dict[tuple[str, str, str], int] = {}
        self._assignments: dict[tuple[str, str], tuple[Assignment, ...]] = {}
        self._sides: dict[tuple[str, str], list[Sides]] = {}
        self._known: dict[bytes, tuple[tuple[Assignment, ...], list[Sides]]] = {}
        self.tables = PricedTables(graph, phases, prices)
        self._tuples: dict[Hashable, tuple[Layout, ...]] = {}
        self.memo = Memo()
        self.holding = Holding(self.memo)
        self.copied: list[Copied] = []
        self._producers = {value: (n.name, place) for n in graph.nodes for place, value in enumerate(n.outputs)}
        self.static = static_nodes(graph)
        self.kept = kept_values(graph, self.static)
        self.consumers = consumers_of(graph)
        self._build()

    def is_fixed(self, number: int) -> bool:
        """Say whether a variable is about a value that depends on parameters alone, which is converted at load, in no phase."""
        return self.variables[number].phase == SHARED and self.variables[number].kind != "state"

    def repeated(self, choice: Sequence[int]) -> list[tuple[int, str, float]]:
        """Return what is charged more often than programs do it: (reader, phase, seconds), or (reader, SHARED, bytes) for a copy."""
        key = tuple(choice)
        if self._repeated[0] != key:
            self._repeated = key, list(repeated(self, self.shared, choice))
        return self._repeated[1]

    def produced(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """Return the variable of the node that produces a value in a phase, and the layout that each of its choices produces."""
        producer, place = self._producers[value]
        return self.index["node", producer, phase], self._produced(producer, place, phase)

    def choices(self, node: str, phase: str) -> tuple[tuple[Assignment, ...], list[Sides]]:
        """Return the assignments of a node in a phase, and the layouts that each implies."""
        return self._assignments[node, phase], self._sides[node, phase]

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
                self._input(name, type_, phase)
            self._nodes(phase.name, [n for n in self.graph.nodes if n.name not in self.static], phase)
            self._ends(phase)
            self.unary[-1] = self.unary[-1] + phase.weight * self.prices.program_s  # whatever is chosen

    def _prepare(self, node: Node, phase: str, sizes: Mapping[str, int]) -> None:
        """Collect the assignments of a node, with the layouts that each implies."""
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
        self.unary.append(self.tables.zeros(len(made.assignments or made.layouts)))
        self.index[made.kind, made.name, made.phase] = number
        return number

    def _input(self, name: str, type_: TensorType, phase: Phase) -> None:
        made = Variable("input", name, phase.name, layouts=self._layouts_of(name, type_, [phase.name]))
        self._make_copies(name, self._variable(self._with_copies(made, name)), phase)

    def _held(self, kind: str, name: str, type_: TensorType) -> None:
        """Add the variable of a parameter or state: every layout that a reader requires, with the bytes held."""
        phase = max(self.phases, key=lambda p: prod(type_.sized(p.sizes)))
        homes = self._layouts_of(name, type_, [p.name for p in self.phases])
        made = self._with_copies(Variable(kind, name, SHARED, layouts=homes), name) if kind != "state" else None
        number = self._variable(made or Variable(kind, name, SHARED, layouts=homes))
        sizes = type_.sized(phase.sizes)
        kept = [(lay, *more) for lay, more in self.variables[number].with_copies()]
        self.holding.unary[number] = self.tables.held(tuple(kept), sizes, type_.dtype)

    def _with_copies(self, made: Variable, value: str) -> Variable:
        """Return the variable extended by the sets of copies that several readers could share, or unchanged if there are none."""
        most = self.copies.get((made.kind, made.name, made.phase), 0)
        if not 0 < most <= 2:
            return made
        found: dict[Layout, set[tuple[str, str]]] = {}
        for phase in [p.name for p in self.phases] if made.phase == SHARED else [made.phase]:
            for node, operand in self.consumers.get(value, ()):
                home = SHARED if node.name in self.static else phase
                for layout in self._required(node, operand, home):
                    found.setdefault(layout, set()).add((node.name, home))
        more = [lay for lay, readers in found.items() if len(readers) + self._ends_of(value) > 1]
        sets = [c for n in range(most + 1) for c in combinations(more, n)]
        both = [(home, c) for home in made.layouts for c in sets if home not in c]
        if len(both) > MOST_CHOICES:
            return made
        return Variable(made.kind, made.name, made.phase, (), tuple(h for h, _ in both), tuple(c for _, c in both))

    def _layouts_of(self, name: str, type_: TensorType, phases: Sequence[str]) -> tuple[Layout, ...]:
        """Return the layouts that the readers of a value require in these phases, and the replicated one.

        A value that no node produces is never partial: a reader that requires it so (a bias that is added once) masks it.
        """
        wishes: dict[int, tuple[Layout, ...]] = {}
        for node, operand in self.consumers.get(name, ()):
            for phase in phases if node.name not in self.static else [SHARED]:
                required = self._required(node, operand, phase)
                wishes[id(required)] = required
        made = name in self._producers

        def union() -> tuple[Layout, ...]:
            found = dict.fromkeys([Layout.replicated(len(type_.shape)), *(lay for w in wishes.values() for lay in w)])
            return tuple(found if made else dict.fromkeys(Layout(lay.dims) for lay in found))

        return self._once(("layouts", len(type_.shape), made, *wishes), union)

    def _once(self, key: Hashable, make: Callable[[], tuple[Layout, ...]]) -> tuple[Layout, ...]:
        """Return the layouts known by this key, made on first use: equal tuples are one object, compared by identity."""
        if key not in self._tuples:
            self._tuples[key] = make()
        return self._tuples[key]

    def _required(self, node: Node, operand: int, phase: str) -> tuple[Layout, ...]:
        """Return the layout that each assignment of a node requires of an input."""
        sides = self._sides[node.name, phase]
        key = ("required", id(sides), operand)
        return self._once(key, lambda: tuple(lay for required, _ in sides if (lay := required[operand]) is not None))

    def _produced(self, node: str, place: int, phase: str) -> tuple[Layout, ...]:
        """Return the layout that each assignment of a node produces for an output."""
        sides = self._sides[node, phase]
        return self._once(("produced", id(sides), place), lambda: tuple(produced[place] for _, produced in sides))

    def _nodes(self, phase_name: str, nodes: Sequence[Node], phase: Phase) -> None:
        for node in nodes:
            number = self._variable(Variable("node", node.name, phase_name, self._assignments[node.name, phase_name]))
            if phase_name != SHARED:
                self.unary[number] = self.memo.times(
                    self.tables.work(node, phase, self._assignments[node.name, phase_name]), phase.weight
                )
            for value in dict.fromkeys(filter(None, node.inputs)):
                self._connect(value, node, number, phase, phase_name)
            for place, value in enumerate(node.outputs):
                if phase_name == SHARED and value in self.kept and not is_view(node):
                    self._held("value", value, self.graph.types[value])
                elif phase_name != SHARED and self.readers(value) > 1:
                    self._fan_out(node, place, value, number, phase)

    def readers(self, value: str, source: int | None = None) -> int:
        """Count the readers of a value: nodes, the caller, states that it replaces; for a fixed variable, over all phases."""
        nodes = {reader.name for reader, _ in self.consumers.get(value, ())}
        if source is None or not self.is_fixed(source):
            return len(nodes) + self._ends_of(value)
        return len(nodes & self.static) + len(self.phases) * (len(nodes - self.static) + self._ends_of(value))

    def _ends_of(self, value: str) -> int:
        return (value in self.graph.outputs) + sum(s.output == value for s in self.graph.states)

    def _fan_out(self, node: Node, place: int, value: str, producer: int, phase: Phase) -> None:
        """Add a variable for the layout in which a value with several readers is held."""
        produced = self._produced(node.name, place, phase.name)
        read = self._layouts_of(value, self.graph.types[value], [phase.name])
        states = [s.input for s in self.graph.states if s.output == value]
        held = [self.variables[self.index["state", state, SHARED]].layouts for state in states]
        ends = value in self.graph.outputs

        def union() -> tuple[Layout, ...]:
            # readers that require different parts of a sum can share the all-reduced value
            whole = [Layout(lay.dims) for lay in produced] if ends or len(self.candidates.axes) > 1 else []
            return tuple(dict.fromkeys([*produced, *read, *whole, *(lay for layouts in held for lay in layouts)]))

        choices = self._once(("held", id(produced), id(read), ends, *map(id, held)), union)
        made = self._with_copies(Variable("value", value, phase.name, layouts=choices), value)
        number = self._variable(made)
        self.pair(producer, number, self.tables.conversions(value, produced, made.layouts, phase), phase.weight)
        self._make_copies(value, number, phase)

    def _make_copies(self, value: str, number: int, phase: Phase) -> None:
        """Add to each choice of a value's variable the seconds that its copies take."""
        if self.variables[number].copies:
            both = self.variables[number].with_copies()
            prices = [
                self.tables.conversions(value, (home,), copies, phase).sum() if copies else 0.0 for home, copies in both
            ]
            self.unary[number] = self.unary[number] + phase.weight * np.array(prices)

    def _connect(self, value: str, node: Node, number: int, phase: Phase, home: str) -> None:
        """Add the price of converting a value for a node that reads it, once if two operands require the same layout."""
        source, produced = self.source(value, phase.name)
        fixed = self.is_fixed(source)
        if fixed and home == SHARED and not (is_view(node) and self.kept.intersection(node.outputs)):
            return  # a temporary copy, freed at load once the node has run
        before: list[tuple[Layout, ...]] = []
        for required in dict.fromkeys(
            self._required(node, n, home) for n, name in enumerate(node.inputs) if name == value
        ):
            if fixed:  # it is converted at load: that costs no time, but the memory of a copy
                self.copied.append(Copied(source, number, value, produced, required))
            table = (
                self.tables.copies(value, produced, required)
                if fixed
                else self.tables.conversions(value, produced, required, phase)
            )
            if before:
                table = table * [all(w != b[n] for b in before) for n, w in enumerate(required)]
            self._pay(value, source, number, table, required, phase)
            before.append(required)

    def _pay(
        self, value: str, source: int, number: int, table: Table, required: Sequence[Layout], phase: Phase
    ) -> None:
        """Add the price of a reader's conversions, in seconds or in bytes held; a conversion to a copy that exists is free."""
        variable, fixed = self.variables[source], self.is_fixed(source)
        table = table if fixed else self.memo.times(table, phase.weight)
        if variable.copies:
            table = np.array(
                [
                    [0.0 if w in c else x for x, w in zip(row, required, strict=True)]
                    for row, c in zip(table, variable.copies, strict=True)
                ]
            )
        (self._hold if fixed else self.pair)(source, number, table)
        self.shared.append(Shared(value, source, number, SHARED if fixed else phase.name, table, tuple(required)))

    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """Return the variable that decides the layout of `value`, and the layout for each of its choices."""
        homes = ("value", phase), ("value", SHARED), ("input", phase), ("parameter", SHARED), ("state", SHARED)
        for kind, name in homes:
            if (number := self.index.get((kind, value, name))) is not None:
                return number, self.variables[number].layouts
        producer, place = self._producers[value]
        shared = SHARED if producer in self.static else phase
        return self.index["node", producer, shared], self._produced(producer, place, shared)

    def _ends(self, phase: Phase) -> None:
        """Price the conversions of outputs, to any layout that is not partial, and of new states, to the layout they are held in.

        An output that already has a variable, since nodes read it too, keeps that layout without its partial sums.
        """
        for value in self.graph.outputs:
            source, produced = self.source(value, phase.name)
            whole = tuple(Layout(lay.dims) for lay in produced)
            choices = tuple(dict.fromkeys(whole))
            if self.is_fixed(source):
                self._pay(value, source, source, self.tables.copies(value, produced, whole), whole, phase)
            elif self.variables[source].kind != "node":
                self._pay(value, source, source, self.tables.conversions(value, produced, whole, phase), whole, phase)
            else:
                number = self._variable(Variable("output", value, phase.name, layouts=choices))
                self.pair(source, number, self.tables.conversions(value, produced, choices, phase), phase.weight)
        for state in self.graph.states:
            source, produced = self.source(state.output, phase.name)
            number, held = self.source(state.input, phase.name)
            self._pay(
                state.output, source, number, self.tables.conversions(state.output, produced, held, phase), held, phase
            )

    def pair(self, a: int, b: int, table: Table, weight: float = 1.0) -> None:
        """Add a table of seconds by the choices of two variables, times a weight."""
        charge(self.memo, self.unary, self.pairs, a, b, self.memo.times(table, weight))

    def _hold(self, a: int, b: int, table: Table) -> None:
        """Add a table of bytes held by the choices of two variables."""
        self.holding.add(a, b, table)
        if a != b:
            self.pair(a, b, self.tables.zeros(*table.shape))


def charge(memo: Memo, unary: list[Table], pairs: Pairs, a: int, b: int, table: Table) -> None:
    """Add a table of seconds by the choices of two variables to prices; if the variables are the same, its diagonal counts."""
    if a > b:
        a, b, table = b, a, memo.turned(table)
    if a == b:
        unary[a] = memo.add(unary[a], memo.make("diagonal", (table,), table.diagonal))
        return
    have = pairs.get((a, b))
    pairs[a, b] = table if have is None else memo.add(have, table)
