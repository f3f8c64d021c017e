"""How another transport than KVStore carries MXNet's arrays: in place, on the memory that MXNet has them in.

Copied to NumPy's memory and back, a small all-reduce takes 538 us in a decode loop, in place 322. MXNet computes in the
background: whoever reads an array's memory waits for the array first. What is received lies in new arrays, which nothing
in the background writes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from mxnet.base import _LIB, check_call

from unitp.engine.transport import Buffers, Carried, Memory, contiguous
from unitp_mxnet import primitives as p
from unitp_mxnet.collectives import row, stacked
from unitp_mxnet.operators import Tensor, host, mx


def view(x: Tensor) -> Memory:
    """The array in the memory of an MXNet array, once it is computed. Use it while the MXNet array is there."""
    if isinstance(x, np.ndarray):
        return contiguous(x)
    x.wait_to_read()
    pointer, dtype, shape = ctypes.c_void_p(), np.dtype(x.dtype), tuple(x.shape)
    check_call(_LIB.MXNDArrayGetData(x.handle, ctypes.byref(pointer)))
    memory = (ctypes.c_char * (dtype.itemsize * prod(shape))).from_address(pointer.value or 0)
    return np.frombuffer(memory, dtype).reshape(shape)


def room(shape: tuple[int, ...], dtype: Any) -> Tensor:
    """A new MXNet array."""
    return mx.nd.empty(shape, dtype=dtype)


class CarriedCollectives:
    """`unitp.engine.primitives.Collectives` over a transport, on arrays, and written on the tape where a program is recorded."""

    def __init__(self, buffers: Buffers) -> None:
        self._carried = Carried(buffers, view, room)
        self.tally = self._carried.tally

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        fn = partial(self._carried.all_reduce, axis=axis, reduction=reduction)
        return host(fn, x, type=(p.shape(x), p.dtype(x)), ordered=True)

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        count = self._carried.sizes[axis]
        fn = partial(self._carried.all_gather, axis=axis)
        rows = host(fn, x, type=((count, *p.shape(x)), p.dtype(x)), ordered=True)
        return [row(rows, place) for place in range(count)]

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        fn = partial(self._carried.reduce_scatter, axis=axis)
        return host(fn, stacked(parts), type=(p.shape(parts[0]), p.dtype(parts[0])), ordered=True)

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        fn, given = partial(self._carried.all_to_all, axis=axis), stacked(parts)
        rows = host(fn, given, type=(p.shape(given), p.dtype(given)), ordered=True)
        return [row(rows, place) for place in range(len(parts))]

    def close(self) -> None:
        self._carried.close()
