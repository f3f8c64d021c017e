"""Parameters side by side in large pages.

A decode step reads every weight once, so it is bound by memory, and with pages of 4 KiB a part of the time goes into
finding them: in one block of 2 MiB pages the same products take 6 to 15 % less. Memory that is not used is never
touched.
"""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK = 64 << 20
SMALL = 64 << 10
LINE = 64


class Arena:
    """Copies of arrays that live as long as somebody holds one of their block."""

    def __init__(self) -> None:
        self._block: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0

    def copy(self, array: Array) -> Array:
        """Return a copy in C order, in a block with those that were copied before it; a small one by itself."""
        out = self.room(array.shape, array.dtype)
        out[...] = array
        return out

    def room(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of this shape for somebody to fill, in C order, where a copy would be."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if size < SMALL:
            return np.empty(shape, dtype)
        if self._used + size > self._block.size:
            self._block, self._used = _block(max(BLOCK, size)), 0
        place = self._block[self._used : self._used + size]
        self._used += -(-size // LINE) * LINE
        return place.view(dtype).reshape(shape)


def _block(size: int) -> npt.NDArray[np.uint8]:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
