"""Operands whose numbers are places in a dim (an index, a position, a length), and how they move through operators.

Their meaning is ONNX's for all operators. An index is from -n to n - 1; a negative one counts once from the end. A place
that is written to, a position and a length cannot be counted from the end. An illegal number is an error, wherever ranks
cut the dim. A record declares three things, each a function of attributes and (concrete) shapes:

    places     the operands that are places, and which numbers are legal there
    moved      how an operator that only moves elements moves arrays: a place stays a place on its way through it
    selected   the outputs that are places by construction (of top-k), and their range
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.graph.ops.attributes import Attributes
from unitp.graph.values import Dim

Array = npt.NDArray[Any]
Shape = tuple[Dim, ...]
Span = tuple[int, int]
"""The smallest and the largest number."""


class Place(msgspec.Struct, frozen=True):
    """An operand of places. The numbers from `low` to `high` are legal, both included. `what` is their name in errors."""

    operand: int
    what: str
    low: int
    high: int

    @property
    def legal(self) -> str:
        return f"{self.low} to {self.high}" if self.low <= self.high else "none"

    @property
    def harmless(self) -> int:
        """A legal number that replaces an illegal one."""
        return max(self.low, 0)

    def strange(self, found: Array) -> Array:
        """Return a bool array that is true where numbers are illegal."""
        return np.asarray((found < self.low) | (found > self.high))


PlacesFunction = Callable[[Attributes, Sequence[Shape | None]], tuple[Place, ...]]
MovedFunction = Callable[[Attributes, Sequence[Array], Sequence[tuple[int, ...]]], tuple[Array, ...]]
"""A function from attributes, inputs and the shapes of outputs to the outputs."""
SelectedFunction = Callable[[Attributes, Sequence[Shape | None]], Mapping[int, Span]]
"""A function from attributes and input shapes to the range of each output that has places, by its number."""


def index(operand: int, size: Dim) -> Place:
    """Return the record of an operand that indexes `size` rows."""
    return Place(operand, "index", -int(size), int(size) - 1)


def refused(subject: str, number: object, at: Sequence[int], place: Place, op: str, name: str) -> str:
    """Return the message about an illegal number of `subject`, which operator `op`, known as `name`, uses as a place."""
    where = f" at [{', '.join(map(str, at))}]" if at else ""
    return f'{subject} has {number}{where}, but as {place.what} of {op} "{name}" legal are {place.legal}'


def reshaped(attrs: Attributes, inputs: Sequence[Array], outputs: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    """Return the input in the shape of the output: the `MovedFunction` of operators that keep their elements in order."""
    return (inputs[0].reshape(outputs[0]),)
