"""This rank's parameters, and what programs make of them alone: each is made once, kept once, shared by all programs.

A derived value is known by how it was made (operator, attributes, splits, what it was made of), not by its name, so
that programs of several sizes find each other's. Only values that a program reads at each call are kept. A parameter
that is MatMul's right operand is stored as the backend's `pack` wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Set

from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import ProgramError

Key = Hashable


class Constants:
    """Values by key; a parameter's key is its name. A value is None where this rank holds nothing of it."""

    def __init__(self, primitives: Primitives, overrides: Overrides) -> None:
        self._primitives, self._pack = primitives, overrides.pack
        self._values: dict[Key, Tensor] = {}
        self._operands: set[Key] = set()

    def put(self, name: str, value: Tensor) -> None:
        """Keep this rank's part of a parameter."""
        self._values[name] = value

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __getitem__(self, key: Key) -> Tensor:
        if key not in self._values:
            raise ProgramError(f'parameter "{key}" was not loaded before the program that reads it')
        return self._values[key]

    def keep(self, key: Key, make: Callable[[], Tensor]) -> Tensor:
        """The value known by `key`, made now if it is new."""
        if key not in self._values:
            self._values[key] = make()
        return self._values[key]

    def retain(self, keys: Set[Key]) -> None:
        """Let go what was derived, but for these keys; parameters and operands stay."""
        derived = [k for k in self._values if not (isinstance(k, str) or k in keys or k in self._operands)]
        for key in derived:
            del self._values[key]

    def operand(self, name: str, transposed: bool) -> Tensor:
        """A two-dimensional parameter (or its transpose) as MatMul's right operand."""

        def packed() -> Tensor:
            weight = self[name]
            if weight is None:
                return None
            operand, self._values[name] = self._pack(self._primitives, weight, transposed)
            return operand

        key = ("operand", name, transposed)
        self._operands.add(key)
        return self.keep(key, packed)
