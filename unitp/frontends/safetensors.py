"""Reads the position of each tensor from safetensors files, single or sharded with an index, but no tensor.

The format: https://huggingface.co/docs/safetensors. The package reads tensors, but ranks need their offsets. All sizes are
checked here, because ranks trust them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitp.errors import ModelError
from unitp.files import MOST_JSON, opened, parse_json, read_json, require_whole
from unitp.graph.source import FileSource
from unitp.graph.weights import NUMBERS
from unitp.texts import cut, shortened

MOST_DIMS, MOST_NUMBERS = 32, 1 << 60
HEADER = 8
"""The number of bytes at the beginning of a file that give the length of its header."""


def read_sharded(index: Path) -> dict[str, FileSource]:
    """Return the tensors of all files that an index names. Raises ModelError if it and the files disagree."""
    places = read_json(index, ModelError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} is corrupt: it has no weight_map")
    if strange := [f for f in places.values() if not isinstance(f, str) or Path(f).name != f]:
        raise ModelError(f"{index} is corrupt: {shortened(strange[0])} is not a file in its folder")
    found: dict[str, FileSource] = {}
    for file in sorted(set(places.values())):
        here = read_safetensors(index.parent / file)
        for name, source in here.items():
            if places.get(name) != file:
                raise ModelError(f'{index} has tensor "{name}" in {places.get(name)}, it is in {file}')
            found[name] = source
    if lost := [name for name in places if name not in found]:
        raise ModelError(f'{index} has tensor "{lost[0]}" in {places[lost[0]]}, which does not hold it')
    return found


def read_safetensors(path: Path) -> dict[str, FileSource]:
    """Return the source of each tensor of a file. Raises ModelError for a missing, truncated or corrupt file."""
    with opened(path, ModelError, hint="Weights are read from safetensors.") as file:
        size = require_whole(file, path, ModelError)
        length = int.from_bytes(file.read(HEADER), "little")
        if size < HEADER or length > size - HEADER:
            raise ModelError(f"{path} is truncated or not a safetensors file: it has {size} bytes, its header {length}")
        if length > MOST_JSON:
            raise ModelError(f"{path} has a header of {length} bytes, at most {MOST_JSON} are read")
        header = parse_json(file.read(length), f"{path} is corrupt: its header", ModelError)
    about, begin = header.pop("__metadata__", {}), HEADER + length
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ModelError(f"{path} is corrupt: its __metadata__ is not text by name")
    found = {name: _entry(path, name, entry, begin) for name, entry in header.items()}
    _require_contiguous(path, found, begin, size)
    return found


def _require_contiguous(path: Path, found: Mapping[str, FileSource], begin: int, size: int) -> None:
    """Raise ModelError if tensors overlap, or bytes belong to no tensor. The package refuses such files, too."""
    at, last = begin, "the header"
    for name, source in sorted(found.items(), key=lambda item: (item[1].offset, _stored_bytes(item[1]))):
        if source.offset != at:
            how = "overlaps" if source.offset < at else f"leaves {source.offset - at} bytes that are nobody's after"
            raise ModelError(f'{path} is corrupt: tensor "{name}" {how} {last}')
        at, last = at + _stored_bytes(source), f'tensor "{name}"'
    if at != size:
        state = "truncated" if at > size else "corrupt"
        raise ModelError(f"{path} is {state}: its tensors end at byte {at}, the file at {size}")


def _entry(path: Path, name: str, entry: Any, begin: int) -> FileSource:
    """Return the source of one tensor, from its entry in a header. Raises ModelError for an entry that is not sound."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise ModelError(f'{path} is corrupt: tensor "{name}" is {shortened(entry)}')
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMBERS:
        raise ModelError(f'{path}: tensor "{name}" has dtype {cut(str(dtype))}; known: {", ".join(NUMBERS)}')
    if not all(isinstance(v, list) and all(type(n) is int and n >= 0 for n in v) for v in (shape, offsets)):
        raise ModelError(f'{path} is corrupt: tensor "{name}" has shape {shortened(shape)} at {shortened(offsets)}')
    if len(shape) > MOST_DIMS or math.prod(n or 1 for n in shape) >= MOST_NUMBERS:
        raise ModelError(f'{path} is corrupt: tensor "{name}" has shape {shortened(shape)}: no array is so large')
    source = FileSource(str(path), begin + offsets[0] if offsets else begin, dtype, tuple(shape))
    if len(offsets) != 2 or offsets[1] - offsets[0] != _stored_bytes(source):
        raise ModelError(
            f'{path} is corrupt: tensor "{name}", {dtype} of shape {shape}, has {shortened(offsets)} for its bytes'
        )
    return source


def _stored_bytes(source: FileSource) -> int:
    return math.prod(source.shape) * np.dtype(NUMBERS[source.dtype]).itemsize
