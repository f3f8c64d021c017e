"""Builds a graph in Python: each call adds one ONNX operator and returns the name of its output.

b = Builder("mlp")
x = b.input("x", "float32", ("batch", 64))
h = b.Relu(b.MatMul(x, b.random("up", (64, 256), seed=1)))
graph = b.graph(b.MatMul(h, b.random("down", (256, 64), seed=2)))
"""

from __future__ import annotations

from typing import Any

from unitp.errors import GraphError, did_you_mean
from unitp.graph.graph import Graph
from unitp.graph.ops import infer, known_ops, operator, output_count
from unitp.graph.source import RandomSource, Source
from unitp.graph.values import Dim, Node, Parameter, State, TensorType


class Maker:
    """A function that adds a node of the operator `op` to a graph. `b.MatMul` is one, called as `b.MatMul(x, y)`."""

    def __init__(self, builder: Builder, op: str) -> None:
        self.op, self._builder = op, builder

    def __call__(self, *inputs: str, **attrs: Any) -> Any:
        return self._builder.op(self.op, *inputs, **attrs)


class Builder:
    """Collects a graph. Operators are methods: `b.MatMul(x, y)`, `b.TopK(x, k=3)` (which returns a tuple, one name per output)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[str, TensorType] = {}
        self._inputs: dict[str, TensorType] = {}
        self._parameters: list[Parameter] = []
        self._states: list[State] = []
        self._nodes: list[Node] = []

    def input(self, name: str, dtype: str, shape: tuple[Dim, ...]) -> str:
        self._inputs[name] = self._define(name, TensorType(dtype, shape))
        return name

    def parameter(self, name: str, shape: tuple[Dim, ...], source: Source, dtype: str = "float32") -> str:
        """Add a stored tensor and return its name. With a symbolic dim, `source` gives any number of rows up to its length."""
        self._parameters.append(Parameter(name, self._define(name, TensorType(dtype, shape)), source))
        return name

    def random(self, name: str, shape: tuple[int, ...], *, seed: int, scale: float = 0.1, offset: float = 0.0) -> str:
        """Add a parameter of normal random numbers, which each rank generates from the seed."""
        return self.parameter(name, shape, RandomSource(seed, shape, scale, offset))

    def state(self, name: str, dtype: str, shape: tuple[Dim, ...]) -> str:
        """Add a tensor that is kept between calls, zero at first. `keep` sets the value that replaces it."""
        self._define(name, TensorType(dtype, shape))
        return name

    def keep(self, state: str, value: str) -> None:
        self._states.append(State(state, value, self.types[state]))

    def op(self, op: str, *inputs: str, name: str | tuple[str, ...] = "", **attrs: Any) -> Any:
        """Add operator `op` and return the name of its output, or a tuple of names.

        `name` names the outputs (a single name is for the first); without it, names are generated.
        """
        count = output_count(op)
        first, *rest = (name,) if isinstance(name, str) else name
        first = first or f"{op.lower()}_{len(self._nodes)}"
        outputs = (first, *(rest or (f"{first}.{i}" for i in range(1, count))))
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in attrs.items()}
        node = Node(op, inputs, outputs, frozen)
        for value, found in zip(outputs, infer(node, self.types), strict=True):
            self._define(value, found)
        self._nodes.append(node)
        return outputs if count > 1 else first

    def graph(self, *outputs: str) -> Graph:
        graph = Graph(
            self.name, self._inputs, outputs, tuple(self._parameters), tuple(self._states), tuple(self._nodes)
        )
        _ = graph.types
        return graph

    def __getattr__(self, op: str) -> Maker:
        if operator(op).internal:
            raise GraphError(f'unknown operator "{op}"', hint=did_you_mean(op, known_ops()))
        return Maker(self, op)

    def _define(self, name: str, type_: TensorType) -> TensorType:
        if name in self.types:
            raise GraphError(f'"{name}" is defined twice in graph {self.name}')
        self.types[name] = type_
        return type_
