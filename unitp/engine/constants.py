"""The constants of one rank: its parameters and the values that depend on parameters alone.

Each constant is computed once, stored once and shared by all programs. The key of a derived value is how it was made
(operator, attributes, splits, inputs), not its name, so that programs for different sizes share it. Only values that
a program reads at each call are kept. The backend's `pack` decides how the right operand of a MatMul is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Set

from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import ProgramError

Key = Hashable


class Constants:
    """A mapping from keys to tensors. A parameter's key is its name. A tensor is None where this rank holds no part of it."""

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
        """Return the value of `key`. If there is none yet, it is computed by `make` and kept."""
        if key not in self._values:
            self._values[key] = make()
        return self._values[key]

    def retain(self, keys: Set[Key]) -> None:
        """Drop all derived values except those of `keys`. Parameters and operands stay."""
        derived = [k for k in self._values if not (isinstance(k, str) or k in keys or k in self._operands)]
        for key in derived:
            del self._values[key]

    def operand(self, name: str, transposed: bool) -> Tensor:
        """Return a two-dimensional parameter (or its transpose) packed as the right operand of MatMul.

        It is None where this rank holds no part of the parameter. Raises ProgramError if the parameter was not loaded.
        """

        def packed() -> Tensor:
            weight = self[name]
            if weight is None:
                return None
            operand, self._values[name] = self._pack(self._primitives, weight, transposed)
            return operand

        key = ("operand", name, transposed)
        self._operands.add(key)
        return self.keep(key, packed)
