"""The attributes of one node, read by type, with the defaults of its operator for those that it leaves out.

Defaults stand once, in the operator's record, and are ONNX's. A float attribute means its float32 rounding, widened (`rounded`). A dim may
be counted from the end (`dim`, `dims`). Code that runs many calls reads attributes before the first one.
"""

from __future__ import annotations

import numpy as np

from unitp.errors import GraphError
from unitp.graph.values import Attribute, Dim


def positive(axis: int, rank: int) -> int:
    """Return the number of a dim from the front, from one that may be counted from the end. Raises GraphError if there is none."""
    if not -rank <= axis < rank:
        raise GraphError(f"dim {axis} of a tensor with {rank} dims")
    return axis % rank


NUMBERS = (int, float)


class Attributes(dict[str, Attribute]):
    """Attributes by name, defaults included (`unitp.graph.ops.records.Operator.attributes` makes them).

    Every reader raises GraphError, with the attribute's name, for a value of another type, and for an attribute that has neither
    a value nor a default.
    """

    def whole(self, name: str) -> int:
        """Return an attribute that is a whole number (or a float with a whole value). Raises GraphError for any other value."""
        value = self.real(name)
        if isinstance(value, float) and not value.is_integer():
            raise GraphError(f"attribute {name} is {value!r} but must be a whole number")
        return int(value)

    def real(self, name: str) -> float:
        """Return an attribute that is a number, as it was given. Raises GraphError for any other value."""
        value = self.get(name)
        if not isinstance(value, NUMBERS):
            raise GraphError(f"attribute {name} is {value!r} but must be a number")
        return value

    def rounded(self, name: str) -> float:
        """Return the float32 rounding of an attribute that is a number."""
        return float(np.float32(self.real(name)))

    def truth(self, name: str) -> bool:
        """Return whether an attribute that is a number is not 0."""
        return bool(self.real(name))

    def word(self, name: str) -> str:
        """Return an attribute that is text. Raises GraphError for any other value."""
        value = self.get(name)
        if not isinstance(value, str):
            raise GraphError(f"attribute {name} is {value!r} but must be text")
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a tuple of whole numbers. Raises GraphError for any other value."""
        value = self.get(name)
        if not isinstance(value, tuple) or not all(isinstance(v, int) for v in value):
            raise GraphError(f"attribute {name} is {value!r} but must be a tuple of whole numbers")
        return value  # type: ignore[return-value]

    def sizes(self, name: str) -> tuple[Dim, ...]:
        """Return an attribute that is a tuple of sizes or bounds: numbers or symbols. Raises GraphError for any other value."""
        value = self.get(name)
        if not isinstance(value, tuple):
            raise GraphError(f"attribute {name} is {value!r} but must be a tuple of numbers or symbols")
        return value

    def dim(self, rank: int, name: str = "axis") -> int:
        """Return the dim, counted from the front, that an attribute names of a tensor with `rank` dims."""
        return positive(self.whole(name), rank)

    def dims(self, rank: int, name: str = "axes") -> tuple[int, ...]:
        """Return the dims, counted from the front, that an attribute names of a tensor with `rank` dims, in its order."""
        return tuple(positive(axis, rank) for axis in self.wholes(name))
