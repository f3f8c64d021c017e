"""Inputs that hold places (indices, positions, lengths) are checked as a whole, before the ranks run.

A rank holds only a part of an index, and could report a mistake only after all ranks have run. The driver has the whole
input. So it follows every integer input through operators that only move elements (`unitp.graph.ops.places`) to the
operators that use it as a place, and tracks where each element comes from, so that an error names the input and the
element. The ranks check what cannot be followed (computed indices): `unitp.engine.guards`, with the same records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.engine.engine import Array
from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.graph.ops.places import Place, refused
from unitp.graph.values import Node

Origins = npt.NDArray[np.int64]
"""Where each element of a value comes from: its number among the elements of all integer inputs."""


def require_places(
    graph: Graph, outputs: tuple[str, ...], arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> None:
    """Check integer inputs that operators use as places. Raises InputError that names every input with an illegal number.

    `outputs` are the outputs to compute, `sizes` the sizes of all symbolic dims.
    """
    given = _Given({name: array for name, array in arrays.items() if array.dtype.kind == "i"})
    seen: dict[tuple[str, str, Place], str] = {}
    for node in graph.pruned(outputs):
        if given.held.keys().isdisjoint(node.inputs):
            continue
        for name, place in _places(graph, node, sizes):
            if name in given.held and (key := (name, node.op, place)) not in seen:
                seen[key] = given.problem(name, node, place)
        given.follow(graph, node, sizes)
    if problems := list(filter(None, seen.values())):
        raise InputError(f"graph {graph.name} cannot run with these inputs: {'; '.join(problems)}")


def _places(graph: Graph, node: Node, sizes: Mapping[str, int]) -> list[tuple[str, Place]]:
    """The operands of a node that are places, with the names of their values."""
    known = operator(node.op)
    if (declared := known.places) is None:
        return []
    shapes = [graph.types[name].sized(sizes) if name else None for name in node.inputs]
    return [(node.inputs[place.operand], place) for place in declared(known.attributes(node.attrs), shapes)]


class _Given:
    """The integer inputs. `held` are the values that consist of their elements only."""

    def __init__(self, inputs: Mapping[str, Array]) -> None:
        self.inputs = inputs
        self.held: dict[str, Origins] = {}
        self._first: dict[str, int] = {}
        count = 0
        for name, array in inputs.items():
            self._first[name] = count
            self.held[name] = np.arange(count, count + array.size).reshape(array.shape)
            count += array.size
        flat = [array.reshape(-1) for array in inputs.values()]
        self._elements: npt.NDArray[Any] = np.concatenate(flat) if flat else np.empty(0, np.int64)

    def follow(self, graph: Graph, node: Node, sizes: Mapping[str, int]) -> None:
        """If a node only moves elements of known values, record where the elements of its outputs come from."""
        known = operator(node.op)
        if (moved := known.moved) is None or not all(name in self.held for name in node.inputs):
            return
        types = [graph.types[name] for name in node.outputs]
        if all(type_.dtype in ("int64", "int32") for type_ in types):
            shapes = [type_.sized(sizes) for type_ in types]
            attrs = known.attributes(node.bound(sizes).attrs)
            made = moved(attrs, [self.held[name] for name in node.inputs], shapes)
            self.held |= dict(zip(node.outputs, made, strict=True))

    def problem(self, name: str, node: Node, place: Place) -> str:
        """What is wrong with a value that a node uses as a place, or an empty text."""
        origins = self.held[name].reshape(-1)
        strange = place.strange(self._elements[origins])
        if not strange.any():
            return ""
        origin = int(origins[np.argmax(strange)])
        source = max((s for s in self._first if self._first[s] <= origin), key=self._first.__getitem__)
        at = np.unravel_index(origin - self._first[source], self.inputs[source].shape)
        return refused(source, self._elements[origin], [int(i) for i in at], place, node.op, node.name)
