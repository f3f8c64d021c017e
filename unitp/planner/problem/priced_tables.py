"""The tables of prices that a problem consists of. Equal tables are built once: thirty equal layers cost as much as one.

Layouts and assignments come as tuples, one entry per choice. A tuple that was seen before is recognised by identity, so
tuples stay alive as long as the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import msgspec
import numpy as np

from unitp.graph.graph import Graph
from unitp.graph.values import Node, TensorType
from unitp.layout import Layout
from unitp.planner.choices.candidates import Assignment
from unitp.planner.prices.work import Prices, Shape
from unitp.planner.solve.elimination import Table
from unitp.plans import Phase


class PricedTables:
    """The tables of one graph in some phases, priced on one machine. A table is never written into."""

    def __init__(self, graph: Graph, phases: Sequence[Phase], prices: Prices) -> None:
        self.graph, self.phases, self.prices = graph, phases, prices
        self._tables: dict[Hashable, Table] = {}
        self._alive: list[tuple[Layout, ...]] = []

    def zeros(self, *sizes: int) -> Table:
        """Return a table of zeros."""
        return self._once(("zeros", sizes), lambda: np.zeros(sizes))

    def held(self, choices: tuple[tuple[Layout, ...], ...], sizes: Shape, dtype: str) -> Table:
        """Return the bytes held under each choice of a tensor: the sum over the layouts in which it is held."""
        return self._once(
            ("held", sizes, dtype, choices),
            lambda: np.array([sum(self.prices.held(layout, sizes, dtype) for layout in both) for both in choices]),
        )

    def work(self, node: Node, phase: Phase, assignments: tuple[Assignment, ...]) -> Table:
        """Return the seconds of a node in one call of a phase, for each of its assignments."""
        types = [self._typed(name, phase) if name else None for name in node.inputs]
        key = ("work", node.op, msgspec.msgpack.encode(node.attrs), tuple(types), assignments, phase.name)
        return self._once(key, lambda: self.prices.work(node, phase.sizes, types, assignments))

    def conversions(
        self, value: str, produced: tuple[Layout, ...], required: tuple[Layout, ...], phase: Phase
    ) -> Table:
        """Return the seconds of converting a value from each `produced` layout to each `required` one."""
        return self._between("convert", value, produced, required, phase, self.prices.conversions)

    def copies(self, value: str, produced: tuple[Layout, ...], required: tuple[Layout, ...]) -> Table:
        """Return the bytes of a second copy, for each layout that is held (`produced`) and each `required` one."""
        return self._between("copy", value, produced, required, self.phases[0], self.prices.copies)

    def _typed(self, name: str, phase: Phase) -> TensorType:
        return TensorType(self.graph.types[name].dtype, self.graph.types[name].sized(phase.sizes))

    def _between(
        self,
        kind: str,
        value: str,
        produced: tuple[Layout, ...],
        required: tuple[Layout, ...],
        phase: Phase,
        make: Callable[[Shape, str, tuple[Layout, ...], tuple[Layout, ...]], Table],
    ) -> Table:
        """Return the table that `make` builds for two tuples of layouts."""
        type_ = self.graph.types[value]
        shape = type_.sized(phase.sizes)
        near = (kind, shape, type_.dtype, id(produced), id(required))
        if near not in self._tables:
            key = (kind, shape, type_.dtype, produced, required)
            self._tables[near] = self._once(key, lambda: make(shape, type_.dtype, produced, required))
            self._alive += produced, required
        return self._tables[near]

    def _once(self, key: Hashable, make: Callable[[], Table]) -> Table:
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]
