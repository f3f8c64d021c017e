"""Facts that follow from a graph: who reads a value, which results are views, and what depends on parameters alone."""

from __future__ import annotations

from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.graph.values import Node


def is_view(node: Node) -> bool:
    """Say whether the result of a node always shares the memory of its input."""
    return operator(node.op).view == "always"


def static_nodes(graph: Graph) -> set[str]:
    """Return the nodes that depend on parameters alone. They run once, when parameters are loaded."""
    return {node.name for node in graph.nodes if node.outputs[0] in graph.origins}


def kept_values(graph: Graph, static: set[str]) -> set[str]:
    """Return the values of static nodes that are held between calls: a node reads them, directly or through views, or they are outputs."""
    found = {*graph.outputs, *(s.output for s in graph.states)}
    for node in reversed(graph.nodes):
        if node.name not in static or (is_view(node) and found.intersection(node.outputs)):
            found |= set(node.inputs)
    return found


def consumers_of(graph: Graph) -> dict[str, list[tuple[Node, int]]]:
    """Return by value the nodes that read it, each with the position of the operand."""
    found: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for operand, name in enumerate(node.inputs):
            if name:
                found.setdefault(name, []).append((node, operand))
    return found
