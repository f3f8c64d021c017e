"""Arrays that travel with a message: small ones inside it, large ones through a memory-mapped file of the sender.

One side writes (`Outbox`), the other reads (`Inbox`). The sender's next message reuses the space of this one. That is
safe because requests and replies alternate. A receiver that wants to keep an array copies it.
"""

from __future__ import annotations

import mmap
import os
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unitp.graph.values import DTYPES
from unitp.host import at_host
from unitp.wire.channel import WireError
from unitp.wire.messages import ArrayPart

Array = npt.NDArray[np.generic]

INLINE = 64 * 1024
ALIGNMENT = 64


class Outbox:
    """The sender's side. `path` is the mapped file, which is made for the first large array."""

    def __init__(self, path: Path, inline: int = INLINE) -> None:
        self.path, self.inline = path, inline
        self._map: mmap.mmap | None = None
        self._next = 0

    def clear(self) -> None:
        """Begin a new message: the space of the last one is free."""
        self._next = 0

    def put(self, array: Array) -> ArrayPart:
        """Add an array and return its part of the message. Raises HostError if the file cannot grow."""
        name = array.dtype.name
        if array.nbytes <= self.inline:
            return ArrayPart(name, array.shape, bytearray(array.tobytes()))
        offset, self._next = self._next, -(-(self._next + array.nbytes) // ALIGNMENT) * ALIGNMENT
        target = np.frombuffer(self._room(self._next), array.dtype, array.size, offset)
        np.copyto(target.reshape(array.shape), array)
        return ArrayPart(name, array.shape, offset=offset)

    def _room(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            size = 1 << (size - 1).bit_length()
            with at_host(self.path), open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a bus error later
                self._map = mmap.mmap(file.fileno(), size)
        return self._map


class Inbox:
    """The receiver's side. `path` is the sender's mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None

    def get(self, part: ArrayPart) -> Array:
        """The array, as a view that is valid until the sender's next message. Raises WireError if the part is not valid."""
        if part.dtype not in DTYPES or any(n < 0 for n in part.shape):
            raise WireError(f"an array of dtype {part.dtype} and shape {part.shape} cannot be")
        dtype, count = np.dtype(part.dtype), prod(part.shape)
        if part.offset < 0:
            if len(part.data) != count * dtype.itemsize:
                raise WireError(f"{len(part.data)} bytes for an array {part.dtype}{list(part.shape)}")
            return np.frombuffer(part.data, dtype).reshape(part.shape)
        file = self._file(part.offset + count * dtype.itemsize)
        return np.frombuffer(file, dtype, count, part.offset).reshape(part.shape)

    def _file(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            try:
                with open(self.path, "r+b") as file:
                    self._map = mmap.mmap(file.fileno(), 0)
            except (OSError, ValueError) as error:
                raise WireError(f"the file of large arrays cannot be mapped: {error}") from None
            if len(self._map) < size:
                raise WireError(f"an array ends at byte {size} of a file of {len(self._map)}")
        return self._map
