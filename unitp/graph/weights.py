"""Reads a rank's part of a parameter, and nothing else of the file.

`read(source, intervals)` returns these intervals as float32 values (in float64: widened); in a type of 16 bits, their bits,
rounded to the nearest while they are read, so that no float32 copy of a whole weight is ever made. Quantised tensors are
dequantised slice by slice, in bounded chunks: whole blocks around the interval of the last dim are read and cut. Files
are read with `pread`, not mapped, so that a rank's resident memory has its weights and not the file's pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.errors import ModelError
from unitp.files import opened
from unitp.graph.graph import Graph
from unitp.graph.source import (
    AbsentSource,
    FileSource,
    GgufSource,
    RandomSource,
    RangeSource,
    RopeSource,
    RowsSource,
    Source,
    StackSource,
)
from unitp.graph.stored import rounded, widened
from unitp.graph.values import STORED, Parameter, in_arrays
from unitp.layout import Interval

Array = npt.NDArray[Any]
CHUNK_BYTES = 512 << 10

NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I64": "<i8", "I32": "<i4"}


def shape_of(source: Source) -> tuple[int, ...]:
    """Return the shape of the tensor that a source describes."""
    match source:
        case RopeSource():
            return (source.length, source.dim // 2)
        case RowsSource():
            return (source.stop - source.start, *shape_of(source.of)[1:])
        case StackSource():
            return (len(source.of), *shape_of(source.of[0]))
        case RangeSource():
            return (source.stop,)
        case _:
            return source.shape


def read_parameter(parameter: Parameter, intervals: Sequence[Interval], dtype: str) -> Array:
    """Return the part of a parameter within `intervals`, in the dtype in which a program holds it (`unitp.graph.values.held_as`)."""
    own = parameter.type.dtype
    if own not in STORED or own == dtype:
        return read(parameter.source, intervals, dtype)
    return widened(read(parameter.source, intervals, own), own).astype(dtype)


def read(source: Source, intervals: Sequence[Interval], dtype: str = "float32") -> Array:
    """Return the part of a stored tensor within `intervals` (one per dim), C-contiguous.

    Raises ModelError for a truncated file, and for a number that is too large for the dtype.
    """
    if dtype in STORED:
        return _rounded(source, intervals, dtype)
    match source:
        case RopeSource():
            return _rope(source, intervals).astype(dtype)
        case RandomSource():
            return _random(source, intervals).astype(dtype)
        case RowsSource():
            (a, b), *rest = intervals
            return read(source.of, [(a + source.start, b + source.start), *rest], dtype)
        case StackSource():
            (a, b), *rest = intervals
            out = np.empty([y - x for x, y in intervals], dtype)
            for place in range(a, b):
                out[place - a] = read(source.of[place], rest, dtype)
            return out
        case RangeSource():
            return np.arange(*intervals[0]).astype(dtype)
        case AbsentSource():
            raise ModelError(
                f"a tensor of shape {list(source.shape)} has no data: {source.why or 'weights are missing'}"
            )
        case _:
            return _stored(source, intervals, dtype)


def _rounded(source: Source, intervals: Sequence[Interval], dtype: str) -> Array:
    """Return a part of a stored tensor in a type of 16 bits, read and rounded in chunks of its first dim."""
    (a, b), *rest = intervals
    out = np.empty([y - x for x, y in intervals], in_arrays(dtype))
    step = max(1, CHUNK_BYTES // (4 * max(1, prod(shape_of(source)[1:]))))
    for start in range(a, b, step):
        stop = min(start + step, b)
        out[start - a : stop - a] = rounded(read(source, [(start, stop), *rest]), dtype)
    return out


def require_weights(graph: Graph) -> None:
    """Check that all parameters have data. Raises ModelError for a graph that can be planned but not run."""
    absent = [p.source for p in graph.parameters if isinstance(p.source, AbsentSource)]
    if absent:
        raise ModelError(
            f"{graph.name} cannot be run, its weights are missing: {absent[0].why or 'only its shapes are known'}",
            hint="It can be planned, shown and exported. To run it, give a directory or .gguf file that holds its weights.",
        )


def _stored(source: FileSource | GgufSource, intervals: Sequence[Interval], dtype: str) -> Array:
    """Return rows of a file, chunk by chunk. Of more than two dims only the first is cut before reading, the others afterwards."""
    shape = source.shape
    out = np.empty([b - a for a, b in intervals], dtype)
    if not out.size:
        return out
    if len(shape) == 1:
        out[...] = _rows(source, 0, 1, intervals[0])[0]
        return out
    (a, b), *inner, last = intervals
    per = prod(shape[1:-1])
    step = max(1, CHUNK_BYTES // (4 * per * shape[-1]))
    for start in range(a, b, step):
        stop = min(start + step, b)
        rows = _rows(source, start * per, stop * per, last)
        block = rows.reshape(stop - start, *shape[1:-1], last[1] - last[0])
        cut = tuple(slice(x, y) for x, y in inner)
        out[start - a : stop - a] = block[(slice(None), *cut)]
    return out


def _rows(source: FileSource | GgufSource, start: int, stop: int, columns: Interval) -> Array:
    """Return rows `start:stop` of a stored tensor as a matrix (rows by last dim), cut to `columns`."""
    width = source.shape[-1]
    if isinstance(source, FileSource):
        item = np.dtype(NUMBERS[source.dtype])
        raw = _pread(source.path, source.offset + start * width * item.itemsize, (stop - start) * width * item.itemsize)
        rows = np.frombuffer(raw, item).reshape(stop - start, width)[:, columns[0] : columns[1]]
        if source.dtype == "BF16":
            return (rows.astype(np.uint32) << 16).view(np.float32)
        return rows.astype(np.float32) if source.dtype[0] == "F" else rows
    return _dequantised(source, start, stop, columns)


def _dequantised(source: GgufSource, start: int, stop: int, columns: Interval) -> Array:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(source.kind)
    block, size = GGML_QUANT_SIZES[kind]
    first, last = columns[0] // block, -(-columns[1] // block)
    row_bytes = source.shape[-1] // block * size
    raw = np.frombuffer(_pread(source.path, source.offset + start * row_bytes, (stop - start) * row_bytes), np.uint8)
    blocks = np.ascontiguousarray(raw.reshape(stop - start, row_bytes)[:, first * size : last * size])
    values = dequantize(blocks.reshape(1, -1), kind).reshape(
        stop - start, (last - first) * block
    )  # the package loops over rows
    return np.asarray(values[:, columns[0] - first * block : columns[1] - first * block], np.float32)


def _pread(path: str, offset: int, size: int) -> bytes:
    with opened(path, ModelError, what="weights from ") as file:
        pieces = b"".join(_pieces(file.fileno(), offset, size))
    if len(pieces) != size:
        raise ModelError(f"{path} is truncated: {size} bytes are needed at byte {offset}, {len(pieces)} are there")
    return pieces


def _pieces(handle: int, offset: int, size: int) -> Iterator[bytes]:
    """Yield the bytes asked for, in pieces. `pread` may return fewer than asked for, so it is repeated until the end."""
    while size > 0 and (piece := os.pread(handle, size, offset)):
        yield piece
        offset, size = offset + len(piece), size - len(piece)


def _rope(source: RopeSource, intervals: Sequence[Interval]) -> Array:
    """Return cos or sin of position times frequency, in float64, rounded to float32 once."""
    (a, b), (c, d) = intervals
    pairs = np.arange(c, d, dtype=np.float64)
    frequencies = source.base ** (-2.0 * pairs / source.dim)
    if source.divisors:
        frequencies /= np.asarray(source.divisors, np.float64)[c:d]
    angles = np.outer(np.arange(a, b, dtype=np.float64), frequencies)
    return (np.cos(angles) if source.part == "cos" else np.sin(angles)).astype(np.float32)


def _random(source: RandomSource, intervals: Sequence[Interval]) -> Array:
    """Return normal numbers by Box-Muller over a hash of (seed, place). An element does not depend on which slice is read."""
    strides = [prod(source.shape[i + 1 :]) for i in range(len(source.shape))]
    place = np.zeros([b - a for a, b in intervals], np.uint64)
    for dim, ((a, b), stride) in enumerate(zip(intervals, strides, strict=True)):
        along = [1] * len(intervals)
        along[dim] = b - a
        place += (np.arange(a, b, dtype=np.uint64) * np.uint64(stride)).reshape(along)
    u, v = (_uniform(place, 2 * source.seed + k) for k in (0, 1))
    normal = np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
    return np.asarray(source.offset + source.scale * normal, np.float32)


def _uniform(place: npt.NDArray[np.uint64], stream: int) -> npt.NDArray[np.float64]:
    """Return numbers in (0, 1] by splitmix64 of place and stream (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        z = place * np.uint64(0x9E3779B97F4A7C15) + np.uint64((stream + 1) * 0xD1342543DE82EF95 & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
