"""Calls MXNet's operators by name: at once on arrays, or recorded on a tape if an input is a promise of an array.

Only this module imports MXNet. Promises (`Later`) let the same primitives, overrides and collectives serve twice: with arrays
when a program is prepared, and with promises when it is recorded to run as compiled segments (`unitp_mxnet.segments`). While a
tape is recording, a host function is never called at once, even if all its arrays are known, because other ranks may wait for
it. Legacy operators are used rather than those of `mx.np`, which are slower to call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

if "bool" not in vars(np):
    setattr(np, "bool", np.bool_)  # noqa: B010  (MXNet 1.9.1 asks for the name that NumPy 1.24 removed)

import mxnet
from mxnet._ctypes.ndarray import _imperative_invoke
from mxnet._ctypes.symbol import _symbol_creator as _compose
from mxnet.base import _LIB, c_str, check_call
from mxnet.symbol.symbol import Symbol

mx = mxnet
"""MXNet, for the other modules of this package: the settings above have to come before its import."""

mx.util.set_np_shape(True)  # shapes as in NumPy: () has no dims, 0 is a size

NumpyArray = npt.NDArray[Any]
Device = Any
Type = tuple[tuple[int, ...], str]
"""Shape and dtype (a NumPy name)."""


class Tape(Protocol):
    """A record of calls on promises (`unitp_mxnet.segments.Recording`)."""

    def call(self, op: str, inputs: Sequence[Any], attrs: tuple[tuple[str, str], ...]) -> Later: ...
    def host(self, fn: Callable[..., Any], inputs: Sequence[Any], type: Type, ordered: bool) -> Later: ...


class Later:
    """The promise of an array: its shape and dtype, and the tape that records its calls."""

    __slots__ = ("dtype", "number", "shape")

    def __init__(self, number: int, type: Type) -> None:
        self.number = number
        self.shape, self.dtype = type


_tapes: list[Tape] = []


@contextmanager
def recording(tape: Tape) -> Iterator[None]:
    """Record calls on promises, and all calls of host functions, on this tape."""
    _tapes.append(tape)
    try:
        yield
    finally:
        _tapes.pop()


Tensor = Any
"""An `mx.nd.NDArray`, a `Later`, or a NumPy array without dims: a constant that most operators take as an attribute."""


def call(op: str, *inputs: Tensor, **attrs: Any) -> Tensor:
    """Return the result of the operator `op`, which has one output."""
    if _tapes and any(isinstance(x, Later) for x in inputs):
        return _tapes[-1].call(op, inputs, tuple((name, str(value)) for name, value in attrs.items()))
    arrays = [array(x) if isinstance(x, np.ndarray) else x for x in inputs]
    return _imperative_invoke(_handle(op), arrays, list(attrs), list(attrs.values()), None, False, False)


def host(fn: Callable[..., Any], *inputs: Tensor, type: Type, ordered: bool = False) -> Tensor:
    """Return the result of a Python function of arrays. `ordered`: all ranks call such functions in the same order."""
    return _tapes[-1].host(fn, inputs, type, ordered) if _tapes else fn(*inputs)


def assign(x: Tensor, rows: Tensor, begin: Sequence[int], end: Sequence[int]) -> None:
    """Write `rows` into the box from `begin` to `end` of `x`, in place."""
    bounds = [str(tuple(begin)), str(tuple(end))]
    _imperative_invoke(_handle("_slice_assign"), [x, rows], ["begin", "end"], bounds, x, False, False)


def array(x: NumpyArray) -> Tensor:
    """Return a new MXNet array with the content of `x`."""
    out = mx.nd.empty(x.shape, dtype=x.dtype)
    if x.size:
        out._sync_copyfrom(np.asarray(x, order="C"))
    return out


def symbol(op: str, inputs: Sequence[Symbol], attrs: Sequence[tuple[str, str]]) -> Symbol:
    """Return the symbol of operator `op` applied to symbols."""
    return _compose(
        _handle(op), inputs, None, [name for name, _ in attrs], [value for _, value in attrs], "made", False
    )


def variable(number: int, type: Type) -> Symbol:
    """Return the symbol of input `number` of a segment."""
    shape, dtype = type
    return mx.sym.Variable(f"x{number}", shape=shape, dtype=dtype)


@lru_cache(maxsize=4096)
def infer(op: str, inputs: tuple[Type, ...], attrs: tuple[tuple[str, str], ...]) -> Type:
    """Return the type of an operator's output, as MXNet infers it."""
    made = symbol(op, [variable(number, type) for number, type in enumerate(inputs)], attrs)
    shapes, dtypes = made.infer_shape()[1], made.infer_type()[1]
    return tuple(shapes[0]), np.dtype(dtypes[0]).name


@lru_cache(maxsize=256)
def _handle(op: str) -> int | None:
    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(c_str(op), ctypes.byref(handle)))
    return handle.value
