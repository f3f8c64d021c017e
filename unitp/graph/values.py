"""The small frozen values that a graph is made of: types, nodes, parameters and states.

Where ONNX passes shapes, axes, bounds and k as constant input tensors, these nodes have attributes (`shape`, `axes`,
`starts`, `ends`, `k`), which may name symbolic dims. A node is known by its first output. An absent optional input is the
empty string. A parameter is one stored tensor, read lazily; a `Transpose` of it is a view. A state (a KV cache) is a pair
of input and output that a backend updates in place.

The dtypes of `STORED` have 16 bits, and a parameter may be stored in them; nothing is computed in them. An operator that reads
such a parameter (`unitp.graph.ops.records.Operator.stored`) widens its numbers. In NumPy arrays they are their bits, as uint16.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec
import numpy as np

from unitp.graph.source import Source

Dim = int | str
Attribute = int | float | str | tuple[int | str, ...]

DTYPES = ("float32", "float64", "int64", "int32", "bool")
"""Those that are computed in."""
STORED = ("bfloat16", "float16")
"""Those that parameters may be stored in."""


@lru_cache
def in_arrays(dtype: str) -> str:
    """Return the NumPy dtype of arrays that hold numbers of a dtype: uint16 for those of 16 bits, else the dtype itself."""
    return "uint16" if dtype in STORED else dtype


@lru_cache
def item_bytes(dtype: str) -> int:
    """Return the bytes that a number of a dtype takes."""
    return int(np.dtype(in_arrays(dtype)).itemsize)


def held_as(dtype: str, floats: str) -> str:
    """Return the dtype of a graph's value in a program that computes in `floats`. In float64 stored numbers are widened too."""
    return floats if dtype == "float32" or (dtype in STORED and floats == "float64") else dtype


class TensorType(msgspec.Struct, frozen=True, array_like=True):
    """The dtype (a NumPy name) and global shape of a tensor. A dim is a number or the name of a symbol."""

    dtype: str
    shape: tuple[Dim, ...]

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape with these sizes for its symbols."""
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class Node(msgspec.Struct, frozen=True):
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Attribute] = {}

    @property
    def name(self) -> str:
        return self.outputs[0]

    def bound(self, sizes: Mapping[str, int]) -> Node:
        """Return the node with numbers in place of the symbols in its attributes."""

        def bind(value: Attribute) -> Attribute:
            if isinstance(value, tuple):
                return tuple(sizes[v] if isinstance(v, str) else v for v in value)
            return sizes.get(value, value) if isinstance(value, str) else value

        return msgspec.structs.replace(self, attrs={key: bind(value) for key, value in self.attrs.items()})

    def __str__(self) -> str:
        attrs = "".join(f", {key}={value!r}" for key, value in self.attrs.items())
        return f"{', '.join(self.outputs)} = {self.op}({', '.join(name or '-' for name in self.inputs)}{attrs})"


class Parameter(msgspec.Struct, frozen=True):
    name: str
    type: TensorType
    source: Source


class State(msgspec.Struct, frozen=True):
    """A tensor kept between calls, at first zero. The graph reads it as `input` and produces its new value as `output`."""

    input: str
    output: str
    type: TensorType
