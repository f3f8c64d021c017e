"""Sources say where a parameter's numbers come from. They are small, and are sent to the ranks, which read their own slices.

`unitp.graph.weights.read(source, intervals)` gives the slice of the stored tensor as float32. The driver reads no
weights. A tensor that is known from a config alone has a source without data: it can be planned, but not run.
"""

from __future__ import annotations

import msgspec


class FileSource(msgspec.Struct, frozen=True, tag="file"):
    """Row-major numbers of `dtype` ("F32", "F16", "BF16", "F64", "I64": safetensors' names) at byte `offset` of a file."""

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class GgufSource(msgspec.Struct, frozen=True, tag="gguf"):
    """A tensor of a GGUF file. `kind` is the number of the GGML type, whose blocks run along the last dim; `shape` is row-major."""

    path: str
    offset: int
    kind: int
    shape: tuple[int, ...]


class RopeSource(msgspec.Struct, frozen=True, tag="rope"):
    """cos or sin of `position * base**(-2 i / dim) / divisors[i]`, computed in float64 and rounded once.

    Its shape is (rows, dim/2), for any number of rows up to `length`, the positions that a model was made for.
    """

    part: str
    length: int
    dim: int
    base: float
    divisors: tuple[float, ...] = ()


class RandomSource(msgspec.Struct, frozen=True, tag="random"):
    """`offset + scale * normal` from a counter-based generator. An element depends only on seed and place, so slices agree."""

    seed: int
    shape: tuple[int, ...]
    scale: float = 1.0
    offset: float = 0.0


class RowsSource(msgspec.Struct, frozen=True, tag="rows"):
    """Rows `start:stop` of a stored tensor, for example one part of a fused projection."""

    of: FileSource | GgufSource
    start: int
    stop: int


class StackSource(msgspec.Struct, frozen=True, tag="stack"):
    """Stored tensors of one shape, stacked along a new first dim, for example the experts of a layer."""

    of: tuple[FileSource | GgufSource, ...]


class RangeSource(msgspec.Struct, frozen=True, tag="range"):
    """The numbers 0, 1, ..., stop - 1."""

    stop: int


class AbsentSource(msgspec.Struct, frozen=True, tag="absent"):
    """A tensor without data, of which only the shape is known. `why`: what a user who tries to run the model is told."""

    shape: tuple[int, ...]
    why: str = ""


Source = FileSource | GgufSource | RopeSource | RandomSource | RowsSource | StackSource | RangeSource | AbsentSource
