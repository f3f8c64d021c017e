"""Where a parameter's numbers come from: small descriptions that travel to the ranks, which read only their own slices.

`unitp.graph.weights.read(source, intervals)` gives the slice of the stored tensor as float32. The driver never reads one.
A tensor that a config alone tells of has a source without data: it can be planned, and nothing that holds one is run.
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
    """A tensor of a GGUF file: `kind` is the GGML type's number; blocks run along the last dim. `shape` is row-major."""

    path: str
    offset: int
    kind: int
    shape: tuple[int, ...]


class RopeSource(msgspec.Struct, frozen=True, tag="rope"):
    """cos or sin of `position * base**(-2 i / dim) / divisors[i]`, computed in float64 and rounded once.

    Its shape is (rows, dim/2), for as many rows as are asked for, up to `length`: the positions that a model was made for.
    """

    part: str
    length: int
    dim: int
    base: float
    divisors: tuple[float, ...] = ()


class RandomSource(msgspec.Struct, frozen=True, tag="random"):
    """`offset + scale * normal` from a counter-based generator; an element depends on seed and place only, so slices agree."""

    seed: int
    shape: tuple[int, ...]
    scale: float = 1.0
    offset: float = 0.0


class RowsSource(msgspec.Struct, frozen=True, tag="rows"):
    """Rows `start:stop` of a stored tensor: a fused projection taken apart."""

    of: FileSource | GgufSource
    start: int
    stop: int


class StackSource(msgspec.Struct, frozen=True, tag="stack"):
    """Stored tensors of one shape, one for each row of a new first dim: the experts of a layer."""

    of: tuple[FileSource | GgufSource, ...]


class RangeSource(msgspec.Struct, frozen=True, tag="range"):
    """The numbers 0, 1, ... below `stop`."""

    stop: int


class AbsentSource(msgspec.Struct, frozen=True, tag="absent"):
    """A tensor without data: only its shape is known. `why` says so to whoever wants to run the model."""

    shape: tuple[int, ...]
    why: str = ""


Source = FileSource | GgufSource | RopeSource | RandomSource | RowsSource | StackSource | RangeSource | AbsentSource
