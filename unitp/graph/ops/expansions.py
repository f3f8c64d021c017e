"""Expansions: the ordinary nodes that replace an operator if a dim that it reduces but keeps (*inner*) is split.

They do a local part, then the collectives follow, then the finish. The factors of these nodes have the operator's names
(`d<i>`), so that its splits apply to each of them. Their partial sums and maxima become collectives as everywhere else. An
operator's record has its expansion.
"""

from __future__ import annotations

from unitp.errors import GraphError
from unitp.graph.ops.records import operator
from unitp.graph.values import Node


class Nodes:
    """Collects nodes whose results are named after the expanded one. `end` gives the last one its real name."""

    def __init__(self, node: Node) -> None:
        self.name = node.name
        self.nodes: list[Node] = []

    def __call__(self, op: str, *inputs: str, **attrs: int | float | tuple[int, ...]) -> str:
        out = f"{self.name}:{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, (out,), dict(attrs)))
        return out

    def mean(self, x: str, dims: tuple[int, ...], count: int, epsilon: float = 0.0) -> str:
        """Return the mean of `count` numbers over dims that are kept, plus `epsilon`."""
        return self("Rescale", self("ReduceSum", x, axes=dims, keepdims=1), count=count, epsilon=epsilon)

    def end(self) -> list[Node]:
        last = self.nodes[-1]
        return [*self.nodes[:-1], Node(last.op, last.inputs, (self.name,), last.attrs)]


def expand(node: Node, shape: tuple[int, ...]) -> list[Node]:
    """Return the nodes that replace `node`, whose first input has this shape, if an inner factor is split.

    Raises GraphError if its operator has no expansion.
    """
    known = operator(node.op)
    if known.expansion is None:
        raise GraphError(f"{node.op} has no expansion for a split inner factor")
    return known.expansion(node, known.attributes(node.attrs), shape)
