"""Safetensors files, one or many by an index: where each tensor lies, without reading one.

The format: https://huggingface.co/docs/safetensors. The package gives tensors, not offsets, which are what ranks need. All
sizes are checked here, since ranks trust them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from unitp.errors import ModelError
from unitp.frontends.fields import read_json
from unitp.graph.source import FileSource
from unitp.graph.weights import NUMBERS


def read_sharded(index: Path) -> dict[str, FileSource]:
    """The tensors of all files that an index names. Raises ModelError where it and they disagree."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} is corrupt: it has no weight_map")
    if strange := [f for f in places.values() if not isinstance(f, str) or Path(f).name != f]:
        raise ModelError(f"{index} is corrupt: {strange[0]!r} is no file of its folder")
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
    """Where each tensor of a file lies. Raises ModelError for a missing, truncated or corrupt file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelError(
                    f"{path} is truncated or no safetensors file: {size} bytes, a header of {length} wanted"
                )
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", hint="Weights are read from safetensors.") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is corrupt: its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path} is corrupt: its header is no JSON object")
    begin = 8 + length
    found = {name: _entry(path, name, e, begin) for name, e in header.items() if name != "__metadata__"}
    end = max((s.offset + _stored_bytes(s) for s in found.values()), default=begin)
    if end != size:
        state = "truncated" if end > size else "corrupt"
        raise ModelError(f"{path} is {state}: its tensors end at byte {end}, the file at {size}")
    return found


def _entry(path: Path, name: str, entry: Any, begin: int) -> FileSource:
    """One tensor of a header."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise ModelError(f'{path} is corrupt: tensor "{name}" is {entry!r}')
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMBERS:
        raise ModelError(f'{path}: tensor "{name}" has dtype {dtype}; known: {", ".join(NUMBERS)}')
    if not all(isinstance(v, list) and all(type(n) is int and n >= 0 for n in v) for v in (shape, offsets)):
        raise ModelError(f'{path} is corrupt: tensor "{name}" has shape {shape!r} at {offsets!r}')
    source = FileSource(str(path), begin + offsets[0] if offsets else begin, dtype, tuple(shape))
    if len(offsets) != 2 or offsets[1] - offsets[0] != _stored_bytes(source):
        raise ModelError(f'{path} is corrupt: tensor "{name}", {dtype} of shape {shape}, has {offsets} for its bytes')
    return source


def _stored_bytes(source: FileSource) -> int:
    return math.prod(source.shape) * np.dtype(NUMBERS[source.dtype]).itemsize
