"""Names for places of a graph that thirty equal layers share, so that reports have one line for all of them.

blk.7.ffn_down.weight      -> blk.*.ffn_down.weight
matmul_279                 -> MatMul blk.*.ffn_down.weight        an operator is known by the parameter that it alone reads,
swish_274                  -> Swish after blk.*.ffn_gate.weight   else by the one before it
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

from unitp.graph.graph import Graph
from unitp.graph.values import Node


def pattern(name: str) -> str:
    """A name with its numbers replaced by `*`."""
    return re.sub(r"\d+", "*", name)


def layer_of(name: str) -> int | None:
    """The first number in a parameter's dotted name, which counts layers; None where there is none."""
    match = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(match[1]) if match else None


class Places:
    """What stands where in a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producer = {value: node for node in graph.nodes for value in node.outputs}
        self._order = {node.name: number for number, node in enumerate(graph.nodes)}

    def label(self, name: str) -> str:
        """The label of a value or of the operator that makes it; parameters, inputs and caches keep their pattern."""
        return self.of(self.producer[name]) if name in self.producer else pattern(name)

    def of(self, node: Node) -> str:
        """The label of an operator."""
        return self._labels[node.name]

    def layer(self, node: Node) -> int | None:
        """The layer that an operator belongs to, by the parameter that labels it."""
        home = self._homes[node.name]
        return layer_of(home) if home else None

    @cached_property
    def static(self) -> dict[str, str]:
        """The values that follow from parameters alone, and the parameter that each follows from first."""
        found = {p.name: p.name for p in self.graph.parameters}
        for node in self.graph.nodes:
            roots = [found.get(name) for name in node.inputs if name]
            if roots and all(roots):
                found |= dict.fromkeys(node.outputs, str(roots[0]))
        return found

    @cached_property
    def _own(self) -> dict[str, str]:
        """The parameter that an operator alone (or one of two: a tied embedding) reads, by the operator's name."""
        read = {n.name: [self.static[i] for i in n.inputs if i in self.static] for n in self.graph.nodes}
        users = Counter(root for n in self.graph.nodes if n.name not in self.static for root in set(read[n.name]))
        return {
            name: next(root for root in roots if name in self.static or users[root] <= 2)
            for name, roots in read.items()
            if any(name in self.static or users[root] <= 2 for root in roots)
        }

    @cached_property
    def _homes(self) -> dict[str, str]:
        """The parameter by which an operator is known: its own, or that of the latest operator before it."""
        found: dict[str, str] = {}
        for node in self.graph.nodes:
            before = [self.producer[n].name for n in node.inputs if n in self.producer and n not in self.static]
            latest = max(before, key=self._order.__getitem__, default="")
            found[node.name] = self._own.get(node.name) or found.get(latest, "")
        return found

    @cached_property
    def _labels(self) -> dict[str, str]:
        found = {}
        for node in self.graph.nodes:
            own, home = self._own.get(node.name), self._homes[node.name]
            after = f" {pattern(own)}" if own else f" after {pattern(home)}" if home else ""
            found[node.name] = node.op + after
        return found
