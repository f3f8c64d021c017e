"""Labels that equal places of all layers share, so that a report has one line for thirty layers.

blk.7.ffn_down.weight      -> blk.*.ffn_down.weight
matmul_279                 -> MatMul blk.*.ffn_down.weight        an operator is labelled by the parameter that it alone reads,
swish_274                  -> Swish after blk.*.ffn_gate.weight   else by that of the latest operator before it
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

from unitp.graph.graph import Graph
from unitp.graph.values import Node


def pattern(name: str) -> str:
    """Return a name with its numbers replaced by `*`."""
    return re.sub(r"\d+", "*", name)


def layer_of(name: str) -> int | None:
    """Return the first number in a parameter's dotted name, which is that of its layer; None if it has no number."""
    match = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(match[1]) if match else None


class Places:
    """The labels and layers of a graph's operators and tensors."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producer = {value: node for node in graph.nodes for value in node.outputs}
        self._order = {node.name: number for number, node in enumerate(graph.nodes)}

    def label(self, name: str) -> str:
        """Return the label of a tensor: that of the operator that produces it, or its own pattern if none does."""
        return self.of(self.producer[name]) if name in self.producer else pattern(name)

    def of(self, node: Node) -> str:
        """Return the label of an operator."""
        return self._labels[node.name]

    def layer(self, node: Node) -> int | None:
        """Return the layer of the parameter that labels an operator, or None."""
        home = self._homes[node.name]
        return layer_of(home) if home else None

    @cached_property
    def static(self) -> dict[str, str]:
        """The values that depend on parameters alone, each with the first of those parameters."""
        return {name: roots[0] for name, roots in self.graph.origins.items()}

    @cached_property
    def _own(self) -> dict[str, str]:
        """By operator name, the parameter that only this operator reads (or this and one other: a tied embedding)."""
        read = {n.name: [self.static[i] for i in n.inputs if i in self.static] for n in self.graph.nodes}
        users = Counter(root for n in self.graph.nodes if n.name not in self.static for root in set(read[n.name]))
        return {
            name: next(root for root in roots if name in self.static or users[root] <= 2)
            for name, roots in read.items()
            if any(name in self.static or users[root] <= 2 for root in roots)
        }

    @cached_property
    def _homes(self) -> dict[str, str]:
        """By operator name, the parameter that labels it: its own, or that of the latest operator before it."""
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
