"""Arrays from untrusted `.npy` and `.npz` files: nothing is unpickled, and no array is larger than its file.

A header may claim any size, and an archive of a few kilobytes may expand to terabytes. So sizes are compared with the
file before an array is allocated, and compressed arrays expand to at most `MOST_EXPANDED` bytes in all.
"""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from unitp.errors import InputError
from unitp.files import foreign, opened

MOST_EXPANDED = 256 << 20
MOST_LISTED = 1 << 20
"""Bytes of an archive's list of entries, where each has some 50."""
END, LONGEST_COMMENT, ZIP64 = b"PK\5\6" + bytes(18), 65535, b"PK\6\7"
"""How an archive ends, and what stands 20 bytes before that where its list is longer than it says there."""
SUFFIX = ".npy"
HEADERS: dict[tuple[int, int], Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_arrays(path: str) -> Any:
    """The array in an `.npy` file, or the arrays of an `.npz` archive by name. Raises InputError for any other file."""
    what = f"cannot read arrays from {path}"
    with opened(path) as file, foreign(what):
        size = os.fstat(file.fileno()).st_size
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return _array(file, size, path)
        _require_short(file, size, what)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            expanded = sum(e.file_size for e in entries if e.compress_type != zipfile.ZIP_STORED)
            stored = sum(e.file_size for e in entries if e.compress_type == zipfile.ZIP_STORED)
            if expanded > MOST_EXPANDED or stored > size:
                raise InputError(
                    f"{what}: they would expand to {expanded + stored} bytes",
                    hint=f"Compressed arrays have at most {MOST_EXPANDED} bytes; np.savez stores larger ones as they are.",
                )
            found = {}
            for entry in entries:
                name = entry.filename.removesuffix(SUFFIX)
                if name in found:
                    raise InputError(f'{what}: "{name}" is there twice')
                with archive.open(entry) as member:
                    found[name] = _array(member, entry.file_size, f"{path}, {entry.filename}")
            return found


def _require_short(file: BinaryIO, size: int, what: str) -> None:
    """Raise InputError for an archive whose list of entries alone takes long to read: it is all read before any entry is."""
    file.seek(max(0, size - len(END) - LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(END[:4])
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at < 0 or listed > MOST_LISTED or tail[: max(0, at - 16)].endswith(ZIP64):
        raise InputError(f"{what}: its list of entries is too long")
    file.seek(0)


def _array(file: Any, size: int, where: str) -> Any:
    """The array that a file of `size` bytes holds."""
    version = npy.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in HEADERS:
        raise InputError(f"{where} has version {version} of NumPy's format, known are 1.0 and 2.0")
    shape, by_columns, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are not read")
    count = 1
    for length in shape:
        count *= length
    left = size - file.tell()
    if count * dtype.itemsize != left or any(length < 0 for length in shape):
        raise InputError(f"{where} has {left} bytes for an array of {dtype} with shape {list(shape)}")
    flat = np.frombuffer(bytearray(_exactly(file, left, where)), dtype, count)
    return flat.reshape(shape, order="F" if by_columns else "C")


def _exactly(file: BinaryIO, size: int, where: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise InputError(f"{where} is truncated: {len(data)} of {size} bytes are there")
    return data
