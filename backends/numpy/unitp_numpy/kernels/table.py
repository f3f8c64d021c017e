"""The table that kernels carry out: a row is an operator, and up to WIDTH - 1 arguments of 64 bits.

An argument is a number, or the address of an operand. Operands are contiguous, unless arguments of the operator give strides.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WIDTH = 18
"""Numbers in a row."""


class Op(IntEnum):
    """What a row does. The arguments are those of the function of this name in `unitp_numpy.kernels.source`.

    A product or look-up of weights stored in 16 bits has the arguments of that in float32.
    """

    PRODUCT = 0
    NORM = 1
    ROTATE = 2
    UPDATE = 3
    ATTEND = 4
    ADD = 5
    MUL = 6
    SWISH = 7
    MOVE = 8
    LOOK_UP = 9
    PRODUCT_BFLOAT16 = 10
    PRODUCT_FLOAT16 = 11
    LOOK_UP_BFLOAT16 = 12
    LOOK_UP_FLOAT16 = 13


class Input(NamedTuple):
    """An argument: the address of an input of the instruction, by its place."""

    place: int


class Output(NamedTuple):
    """An argument: the address of the instruction's output."""


Argument = int | Input | Output | Array


class Row(NamedTuple):
    """An operator with its arguments. An array among them belongs to the row, which keeps it alive."""

    op: Op
    arguments: tuple[Argument, ...]


def bits(x: float) -> int:
    """Return the bits of a float64, as an integer with a sign."""
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


def address(array: Array) -> int:
    """Return the address of the first element of an array."""
    return int(array.__array_interface__["data"][0])


def contiguous(array: Array) -> bool:
    """Say whether the elements of an array lie one after the other in memory, the last dim fastest."""
    return bool(array.flags.c_contiguous)


def strides(array: Array) -> tuple[int, ...]:
    """Return the strides of an array, in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def empty_table(rows: int) -> npt.NDArray[np.int64]:
    """Return a table [rows, WIDTH] of zeros."""
    return np.zeros((rows, WIDTH), np.int64)
