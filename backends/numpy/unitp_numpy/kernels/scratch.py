"""Memory for the results of kernels. Places are reused after their last reader, by all programs of a rank.

A rank runs one program at a time, so its programs share the places. The size of a place is one of eight between two powers
of two, so that at most an eighth of it is wasted.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from unitp_numpy.kernels.table import Array

LEAST = 4096


class Pool:
    """All places of a rank, by their size in bytes."""

    def __init__(self) -> None:
        self._places: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def place(self, size: int, number: int) -> npt.NDArray[np.uint8]:
        """Return place `number` of those with `size` bytes."""
        places = self._places.setdefault(size, [])
        while len(places) <= number:
            places.append(np.zeros(size, np.uint8))
        return places[number]

    def places(self) -> int:
        """Return the number of places."""
        return sum(map(len, self._places.values()))


class Scratch:
    """The places of one program while it is prepared: `take` one for a value, and `give` it back after its last reader."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._free: dict[int, list[int]] = {}
        self._used: dict[int, int] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> tuple[Array, tuple[int, int]]:
        """Return an array of this shape, and the place that it occupies."""
        bytes_ = prod(shape) * np.dtype(dtype).itemsize
        step = max(LEAST, 1 << bytes_.bit_length()) >> 4
        size = -(-bytes_ // step) * step
        free = self._free.setdefault(size, [])
        if not free:
            free.append(self._used.get(size, 0))
            self._used[size] = free[0] + 1
        number = free.pop()
        return self._pool.place(size, number)[:bytes_].view(dtype).reshape(shape), (size, number)

    def give(self, place: tuple[int, int]) -> None:
        """Let another value take this place."""
        self._free[place[0]].append(place[1])
