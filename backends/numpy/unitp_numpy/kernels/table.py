"""The table that the kernels work through: a row is an operator, and up to WIDTH - 1 arguments of 64 bits.

An argument is a number, or an operand whose address takes its place. Operands are contiguous, unless the operator's
arguments say how they are not.
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
    """What a row does. The arguments are those of the function of this name in `unitp_numpy.kernels.source`."""

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
    """The bits of a float64, as an integer with a sign."""
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


def address(array: Array) -> int:
    """Where the numbers of an array begin."""
    return int(array.__array_interface__["data"][0])


def contiguous(array: Array) -> bool:
    """Whether the numbers of an array lie one after the other, the last dim fastest."""
    return bool(array.flags.c_contiguous)


def strides(array: Array) -> tuple[int, ...]:
    """The strides of an array, in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def empty_table(rows: int) -> npt.NDArray[np.int64]:
    """A table [rows, WIDTH] of zeros."""
    return np.zeros((rows, WIDTH), np.int64)
