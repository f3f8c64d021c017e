"""Reads numbers and texts from a model file's metadata, in which any value can have any type.

A missing or impossible value is a ModelError that names the file, the key, the value, and what it must be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from unitp.errors import ModelError
from unitp.texts import shortened

MOST = 1 << 24
"""The largest size that a model file may have: vocabularies have up to 3 * 10^5 rows, contexts up to 10^7 positions."""
MOST_HEAD = 1 << 16
MOST_UNKNOWN = 16
"""A message names at most this many keys that are not implemented."""


class Fields:
    """Values by key. None counts as missing, as in JSON. `prefix` is what the file writes before each key."""

    def __init__(self, values: Mapping[str, Any], where: object, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def whole(self, key: str, default: int | None = None, *, most: int = MOST) -> int:
        """Return a whole number from 1 to `most`. Raises ModelError for any other value."""
        value = self._given(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self.wrong(key, f"a whole number from 1 to {most}")
        return value

    def real(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Return a finite number above zero that is at least `least`. Raises ModelError for any other value."""
        value = self._given(key, default)
        if type(value) not in (int, float) or not (0 < value < math.inf and least <= value <= sys.float_info.max):
            raise self.wrong(key, f"a number of at least {least}" if least else "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._given(key, default)
        if type(value) is not bool:
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        """Return a string, empty if the key is missing. Raises ModelError for any other value."""
        value = self._given(key, "")
        if type(value) is not str:
            raise self.wrong(key, "a string")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """Return token ids, from one id, a list of them, or a missing key. Raises ModelError for any other value."""
        value = self._given(key, ())
        found = tuple(value) if isinstance(value, list | tuple) else (value,)
        if any(type(i) is not int for i in found):
            raise self.wrong(key, "a token id or a list of them")
        return found

    def texts(self, key: str) -> list[str]:
        """Return a list of strings, empty if the key is missing. Raises ModelError for any other value."""
        value = self._given(key, [])
        if not isinstance(value, list) or any(type(v) is not str for v in value):
            raise self.wrong(key, "a list of strings")
        return value

    def wrong(self, key: str, wanted: str) -> ModelError:
        return ModelError(f"{self.where}: {self.prefix}{key} is {shortened(self.get(key))} but must be {wanted}")

    def _given(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where} is incomplete: {self.prefix}{key} is missing")
            return default
        return value
