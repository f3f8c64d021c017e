"""A graph says what to compute: ONNX opset-24 operators over named tensors, with symbolic dims (`unitp.graph.values`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property

import msgspec

from unitp.errors import GraphError, did_you_mean
from unitp.graph.ops import infer
from unitp.graph.values import Node, Parameter, State, TensorType


class Graph(msgspec.Struct, frozen=True, dict=True):
    """Nodes in topological order, with inputs, parameters, states and outputs. `unitp.frontends.builder.Builder` makes graphs."""

    name: str
    inputs: dict[str, TensorType]
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    states: tuple[State, ...]
    nodes: tuple[Node, ...]

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """The type of every value, by shape inference. Raises GraphError if the graph is not well formed."""
        known: dict[str, TensorType] = dict(self.inputs)
        known |= {p.name: p.type for p in self.parameters}
        known |= {s.input: s.type for s in self.states}
        for node in self.nodes:
            for name in filter(None, node.inputs):
                if name not in known:
                    raise GraphError(f'{node}: input "{name}" is not defined before it', hint=did_you_mean(name, known))
            for name, found in zip(node.outputs, infer(node, known), strict=False):
                if name in known:
                    raise GraphError(f'{node}: output "{name}" is defined twice')
                known[name] = found
        for name in (*self.outputs, *(s.output for s in self.states)):
            if name not in known:
                raise GraphError(f'output "{name}" is not defined', hint=did_you_mean(name, known))
        return known

    @cached_property
    def origins(self) -> Mapping[str, tuple[str, ...]]:
        """The values that depend on parameters alone, parameters among them, each with those parameters in order of appearance."""
        found: dict[str, tuple[str, ...]] = {p.name: (p.name,) for p in self.parameters}
        for node in self.nodes:
            read = [name for name in node.inputs if name]
            if all(name in found for name in read):
                found |= dict.fromkeys(
                    node.outputs, tuple(dict.fromkeys(root for name in read for root in found[name]))
                )
        return found

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dims that appear in the types of inputs and states, in order of appearance."""
        types = [*self.inputs.values(), *(s.type for s in self.states), *self.types.values()]
        return tuple(dict.fromkeys(d for t in types for d in t.shape if isinstance(d, str)))

    @cached_property
    def hash(self) -> str:
        """A hash of structure, shapes and dtypes, but not of weights, paths or phases. Raises GraphError for names not in Unicode."""
        sourceless = (
            self.inputs,
            self.outputs,
            [(p.name, p.type) for p in self.parameters],
            self.states,
            self.nodes,
        )
        try:
            text = msgspec.json.encode(sourceless, order="sorted")
        except UnicodeEncodeError as error:
            raise GraphError(f"a name in graph {self.name} is not Unicode: {error.object!r}") from None
        return hashlib.sha256(text).hexdigest()[:16]

    def parameter(self, name: str) -> Parameter:
        return self._parameters[name]

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        return {p.name: p for p in self.parameters}

    def pruned(self, outputs: tuple[str, ...]) -> Iterator[Node]:
        """Yield the nodes that `outputs` and the states need, in order."""
        wanted = {*outputs, *(s.output for s in self.states)}
        keep = []
        for node in reversed(self.nodes):
            if wanted & set(node.outputs):
                wanted |= set(node.inputs)
                keep.append(node)
        return reversed(keep)
