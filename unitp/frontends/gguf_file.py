"""Reads the metadata and the position of each tensor from a GGUF file, but no tensor.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. We do not use the reader of
the `gguf` package, because it takes 1.7 s for a vocabulary of 49152. The ranks dequantise with the package.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from unitp.errors import ModelError
from unitp.files import opened, require_whole
from unitp.graph.source import GgufSource
from unitp.texts import cut, shortened

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
UINT32 = 4
ALIGNMENT = "general.alignment"
MOST_DIMS, MOST_NUMBERS = 4, 1 << 60
MOST_BYTES = 64 << 20
"""The most bytes of a header that are read, whatever a corrupt count says. The headers of known models have up to 10 MB."""
MOST_ENTRIES = 1 << 16
"""The most keys of a header, and the most tensors. The largest known models have some thousands."""
MOST_ITEMS = 1 << 22
"""The most items of all arrays of a header together. The largest known vocabularies need less than a million."""
CHUNK = 1 << 20


class GgufFile(msgspec.Struct, frozen=True):
    path: str
    metadata: dict[str, Any]
    tensors: dict[str, GgufSource]


class _Cursor:
    """Reads numbers and strings from the header of a file of `size` bytes. Reading beyond its end is a ModelError."""

    def __init__(self, path: str, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.at, self.items = path, file, size, 0, 0
        self._data = b""

    def take(self, size: int) -> bytes:
        stop = self.at + size
        if stop > self.size:
            raise ModelError(
                f"{self.path} is truncated or corrupt: {size} bytes are needed at byte {self.at}, it ends at {self.size}"
            )
        if stop > MOST_BYTES:
            raise self.corrupt(f"a header of more than {MOST_BYTES} bytes")
        if stop > len(self._data):
            self._data += self.file.read(max(stop - len(self._data), len(self._data), CHUNK))
            if stop > len(self._data):
                raise ModelError(f"{self.path} is truncated: it has become shorter while it was read")
        found = self._data[self.at : stop]
        self.at = stop
        return found

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, what: str) -> int:
        """Read the number of keys or tensors. Raises ModelError if there are more than `MOST_ENTRIES`."""
        found: int = self.number("Q")
        if found > MOST_ENTRIES:
            raise self.corrupt(f"{found} {what}, at most {MOST_ENTRIES} are read")
        return found

    def string(self) -> str:
        raw = self.take(int.from_bytes(self.take(8), "little"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.corrupt("a string is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise self.corrupt(f"unknown metadata type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner not in SCALARS and inner != STRING:
            raise self.corrupt(f"an array of metadata type {inner}")
        self.items += count
        if self.items > MOST_ITEMS:
            raise self.corrupt(f"arrays of {self.items} items, at most {MOST_ITEMS} are read")
        if inner in SCALARS:
            raw = self.take(struct.calcsize(f"<{SCALARS[inner]}") * count)
            return list(struct.unpack(f"<{count}{SCALARS[inner]}", raw))
        return [self.string() for _ in range(count)]

    def corrupt(self, why: str) -> ModelError:
        return ModelError(f"{self.path} is corrupt: {why}, before byte {self.at}")


def read_gguf(path: str | Path) -> GgufFile:
    """Return the metadata and the source of each tensor. Raises ModelError for a missing, truncated or corrupt file.

    As in llama.cpp's reader, tensors must follow each other in the order of their entries, each padded to the alignment. Unlike
    that reader, this one also refuses a file with data after the last tensor.
    """
    with opened(path, ModelError) as file:
        return _read(_Cursor(str(path), file, require_whole(file, path, ModelError)))


def _read(cursor: _Cursor) -> GgufFile:
    path = cursor.path
    if cursor.size < len(MAGIC) or (magic := cursor.take(len(MAGIC))) != MAGIC:
        seen = f"it begins with {magic!r}" if cursor.size >= len(MAGIC) else f"it has {cursor.size} bytes"
        raise ModelError(f"{path} is not a GGUF file: {seen}")
    if (version := cursor.number("I")) not in (2, 3):
        raise ModelError(f"{path} has GGUF version {version}, known are 2 and 3 (little-endian)")
    count, entries = cursor.count("tensors"), cursor.count("keys")
    metadata: dict[str, Any] = {}
    alignment = 32
    for _ in range(entries):
        key, kind = cursor.string(), cursor.number("I")
        if key in metadata:
            raise cursor.corrupt(f'key "{cut(key)}" is there twice')
        metadata[key] = cursor.value(kind)
        if key == ALIGNMENT:
            alignment = metadata[key]
            if kind != UINT32 or alignment < 1 or alignment & (alignment - 1):
                raise cursor.corrupt(f"{ALIGNMENT} is {shortened(alignment)} but must be a power of two (UINT32)")
    return GgufFile(path, metadata, _tensors(cursor, [_tensor_info(cursor) for _ in range(count)], alignment))


def _tensors(
    cursor: _Cursor, found: Sequence[tuple[str, tuple[int, ...], int, int]], alignment: int
) -> dict[str, GgufSource]:
    """Return the source of each tensor. Raises ModelError if bytes belong to no tensor, or to more than one."""
    path, base = cursor.path, _padded(cursor.at, alignment)
    tensors: dict[str, GgufSource] = {}
    next_at, last = base, "the header"
    for name, shape, kind, at in found:
        if name in tensors:
            raise ModelError(f'{path} is corrupt: tensor "{name}" is there twice')
        if at % alignment:
            raise ModelError(
                f'{path} is corrupt: tensor "{name}" begins at {at}, which is not a multiple of {alignment}'
            )
        tensors[name] = GgufSource(path, base + at, kind, shape)
        end = base + at + _stored_bytes(path, name, tensors[name])
        if end > cursor.size:
            raise ModelError(f'{path} is truncated: tensor "{name}" ends at byte {end}, the file at {cursor.size}')
        if base + at != next_at:
            how = "overlaps" if base + at < next_at else "leaves bytes that are nobody's after"
            raise ModelError(f'{path} is corrupt: tensor "{name}" {how} {last}')
        next_at, last = _padded(end, alignment), f'tensor "{name}"'
    if cursor.size > next_at:
        raise ModelError(f"{path} is corrupt: its tensors end at byte {next_at}, the file at {cursor.size}")
    return tensors


def _padded(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dims = cursor.string(), cursor.number("I")
    if dims > MOST_DIMS:
        raise cursor.corrupt(f'tensor "{name}" has {dims} dims')
    shape = tuple(cursor.number("Q") for _ in range(dims))
    if prod(n or 1 for n in shape) >= MOST_NUMBERS:
        raise cursor.corrupt(f'tensor "{name}" has shape {list(shape[::-1])}: no array is so large')
    return name, shape[::-1], cursor.number("I"), cursor.number("Q")


def _stored_bytes(path: str, name: str, source: GgufSource) -> int:
    if (sizes := _block(source.kind)) is None:
        raise ModelError(f'{path}: tensor "{name}" has type {_kind_name(source.kind)}, which unitp cannot read')
    block, size = sizes
    if (source.shape or (1,))[-1] % block:
        raise ModelError(f'{path} is corrupt: a row of "{name}" does not have a whole number of blocks of {block}')
    return prod(source.shape) // block * size


@lru_cache
def _block(kind: int) -> tuple[int, int] | None:
    """Return the numbers and bytes per block of this GGML type, or None if the `gguf` package cannot dequantise it."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        known = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[known]
        dequantize(np.zeros((1, size), np.uint8), known)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return int(block), int(size)


def _kind_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    return next((known.name for known in GGMLQuantizationType if known == kind), str(kind))
