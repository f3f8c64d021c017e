"""What an operator becomes where a dim that it reduces but keeps (*inner*) is split: local part, collective, finish.

An expansion is a list of ordinary nodes whose factors have the names of the operator's own (`d<i>`), so that the splits of
the operator apply to each; their partial sums and maxima become collectives as everywhere. Top-k and arg-max, whose
candidates have a split of their own, are expanded in `unitp.program.lower`.
"""

from __future__ import annotations

from collections.abc import Callable

from unitp.errors import GraphError
from unitp.graph.graph import Node
from unitp.graph.ops.norm import positive
from unitp.graph.ops.reduction import dims_of
from unitp.graph.ops.records import real, whole

Expansion = Callable[[Node, tuple[int, ...]], list[Node]]


class _Nodes:
    """Collects nodes whose results are named after the expanded one; `end` gives the last its real name."""

    def __init__(self, node: Node) -> None:
        self.name = node.name
        self.nodes: list[Node] = []

    def __call__(self, op: str, *inputs: str, **attrs: int | float | tuple[int, ...]) -> str:
        out = f"{self.name}:{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, (out,), dict(attrs)))
        return out

    def end(self) -> list[Node]:
        last = self.nodes[-1]
        return [*self.nodes[:-1], Node(last.op, last.inputs, (self.name,), last.attrs)]


def _exponentials(node: Node, shape: tuple[int, ...]) -> tuple[_Nodes, str, str, str]:
    dim = positive(whole(node.attrs, "axis", -1), len(shape))
    add = _Nodes(node)
    shifted = add("Sub", node.inputs[0], add("ReduceMax", node.inputs[0], axes=(dim,), keepdims=1))
    exponentials = add("Exp", shifted)
    return add, shifted, exponentials, add("ReduceSum", exponentials, axes=(dim,), keepdims=1)


def _softmax(node: Node, shape: tuple[int, ...]) -> list[Node]:
    add, _, exponentials, total = _exponentials(node, shape)
    add("Div", exponentials, total)
    return add.end()


def _log_softmax(node: Node, shape: tuple[int, ...]) -> list[Node]:
    add, shifted, _, total = _exponentials(node, shape)
    add("Sub", shifted, add("Log", total))
    return add.end()


def _mean(add: _Nodes, x: str, dim: int, count: int, epsilon: float = 0.0) -> str:
    return add("Rescale", add("ReduceSum", x, axes=(dim,), keepdims=1), count=count, epsilon=epsilon)


def _rms_normalization(node: Node, shape: tuple[int, ...]) -> list[Node]:
    x, scale = node.inputs
    dim, add = len(shape) - 1, _Nodes(node)
    mean = _mean(add, add("Mul", x, x), dim, shape[dim], real(node.attrs, "epsilon", 1e-5))
    add("Mul", add("Div", x, add("Sqrt", mean)), scale)
    return add.end()


def _layer_normalization(node: Node, shape: tuple[int, ...]) -> list[Node]:
    x, scale, *bias = node.inputs
    dim, add = len(shape) - 1, _Nodes(node)
    centred = add("Sub", x, _mean(add, x, dim, shape[dim]))
    variance = _mean(add, add("Mul", centred, centred), dim, shape[dim], real(node.attrs, "epsilon", 1e-5))
    scaled = add("Mul", add("Div", centred, add("Sqrt", variance)), scale)
    if bias and bias[0]:
        add("Add", scaled, bias[0])
    return add.end()


def _reduce_mean(node: Node, shape: tuple[int, ...]) -> list[Node]:
    dims, add = dims_of(node.attrs, len(shape)), _Nodes(node)
    count = 1
    for dim in dims:
        count *= shape[dim]
    total = add("ReduceSum", node.inputs[0], axes=dims, keepdims=1)
    mean = add("Rescale", total, count=count, epsilon=0.0)
    if not node.attrs.get("keepdims", 1):
        add("Squeeze", mean, axes=dims)
    return add.end()


_EXPANSIONS: dict[str, Expansion] = {
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "RMSNormalization": _rms_normalization,
    "LayerNormalization": _layer_normalization,
    "ReduceMean": _reduce_mean,
}


def expand(node: Node, shape: tuple[int, ...]) -> list[Node]:
    """The nodes that do the work of `node`, whose first input has this shape, when an inner factor is split."""
    if node.op not in _EXPANSIONS:
        raise GraphError(f"{node.op} has no expansion for a split inner factor")
    return _EXPANSIONS[node.op](node, shape)
