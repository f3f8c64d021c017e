"""Expansions: the ordinary nodes that an operator becomes where a dim that it reduces but keeps (*inner*) is split.

Each does a local part, then come the collectives, then the finish. The factors of these nodes have the names of the operator's
own (`d<i>`), so that its splits apply to each of them; their partial sums and maxima become collectives as everywhere. An
operator's record has its expansion.
"""

from __future__ import annotations

from unitp.errors import GraphError
from unitp.graph.ops.records import operator
from unitp.graph.values import Node


class Nodes:
    """Collects nodes whose results are named after the expanded one; `end` gives the last its real name."""

    def __init__(self, node: Node) -> None:
        self.name = node.name
        self.nodes: list[Node] = []

    def __call__(self, op: str, *inputs: str, **attrs: int | float | tuple[int, ...]) -> str:
        out = f"{self.name}:{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, (out,), dict(attrs)))
        return out

    def mean(self, x: str, dims: tuple[int, ...], count: int, epsilon: float = 0.0) -> str:
        """The mean over dims that are kept, of `count` numbers, plus `epsilon`."""
        return self("Rescale", self("ReduceSum", x, axes=dims, keepdims=1), count=count, epsilon=epsilon)

    def end(self) -> list[Node]:
        last = self.nodes[-1]
        return [*self.nodes[:-1], Node(last.op, last.inputs, (self.name,), last.attrs)]


def expand(node: Node, shape: tuple[int, ...]) -> list[Node]:
    """The nodes that do the work of `node`, whose first input has this shape, when an inner factor is split. Raises GraphError
    where its operator has no expansion.
    """
    expansion = operator(node.op).expansion
    if expansion is None:
        raise GraphError(f"{node.op} has no expansion for a split inner factor")
    return expansion(node, shape)
