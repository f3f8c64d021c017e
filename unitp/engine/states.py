"""The states of a rank, in banks: one set of all states for each group of sequences that are fed together.

A state is made when it is first needed, so that its memory is free while weights are packed. It is None if this rank holds no
part of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import numpy as np

from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import InputError
from unitp.program.instructions import Program
from unitp.program.rank import local_shape


class Storage(ABC):
    """What a framework's states are: how one is made, and how one is written."""

    @abstractmethod
    def make(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Return a new state of this local shape (no size is 0) that is all zeros."""

    @abstractmethod
    def write(self, state: Tensor, value: Tensor) -> Tensor:
        """Return the state with the content of `value`: `state` itself if the framework can write into it.

        The result shares memory with nothing else.
        """

    @abstractmethod
    def apart(self, value: Tensor) -> Tensor:
        """Return `value` as a tensor that shares no memory with any state."""


@final
class Arrays(Storage):
    """States that are ordinary arrays of a framework, written in place by the primitive `update`."""

    def __init__(self, primitives: Primitives) -> None:
        self._p = primitives

    def make(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        return self._p.full(shape, 0, dtype)

    def write(self, state: Tensor, value: Tensor) -> Tensor:
        """Write with `update`, which needs a dim after the first; a state without one is replaced by a copy."""
        shape = self._p.shape(state)
        if len(shape) < 2:
            return self.apart(value)
        return self._p.update(state, value, self._p.full(shape[:1], 0, "int64"), 1)

    def apart(self, value: Tensor) -> Tensor:
        return self._p.from_numpy(np.array(self._p.to_numpy(value)))


class Bank:
    """One set of all states: their local shapes and dtypes, and those that were made."""

    def __init__(self) -> None:
        self.types: dict[str, tuple[tuple[int, ...], str]] = {}
        self.made: dict[str, Tensor] = {}


@final
class States:
    """All banks of a rank; a state is known by the name of the value that programs read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._banks: dict[int, Bank] = {}

    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Note a state of this local shape. A state of the same name in the bank is freed."""
        at = self._banks.setdefault(bank, Bank())
        at.types[name] = (shape, dtype)
        at.made.pop(name, None)

    def free(self, bank: int) -> None:
        """Free the states of a bank."""
        del self._banks[bank]

    def reset(self, bank: int) -> None:
        """Zero the states of a bank in place."""
        at = self._banks[bank]
        for name, state in at.made.items():
            if state is not None:
                at.made[name] = self._storage.write(state, self._storage.make(*at.types[name]))

    def of(self, bank: int) -> dict[str, Tensor]:
        """Return the states of a bank, by name; made if they do not exist yet. An unknown bank has none."""
        if bank not in self._banks:
            return {}
        at = self._banks[bank]
        for name, (shape, dtype) in at.types.items():
            if name not in at.made:
                at.made[name] = None if 0 in shape else self._storage.make(shape, dtype)
        return at.made

    def needed(self, program: Program, bank: int) -> dict[str, Tensor]:
        """Return the states of a bank, for a run of a program. Raises InputError if one that it reads is missing."""
        states = self.of(bank)
        if missing := [old for old, _ in program.states if old not in states]:
            raise InputError(f"bank {bank} has no state {', '.join(missing)}, which the program reads")
        return states

    def like(self, program: Program, rank: int) -> dict[str, Tensor]:
        """Return the states of a bank whose shapes are the program's on this rank. Raises InputError if there is no such bank."""
        wanted = {old: local_shape(program, old, rank) for old, _ in program.states}
        if not wanted:
            return {}
        for number, bank in self._banks.items():
            if wanted == {old: bank.types[old][0] for old in wanted if old in bank.types}:
                return self.of(number)
        raise InputError(f"there is no bank with states of the program's shapes: {wanted}")

    def replace(self, program: Program, results: Mapping[str, Tensor], bank: int) -> None:
        """Write the new states of a run into the old ones, unless they were written in place."""
        states = self.of(bank)
        made = {old: results[new] for old, new in program.states if results[new] is not states[old]}
        if len(made) > 1:  # one may be a view of a state that another is written into
            made = {old: None if x is None else self._storage.apart(x) for old, x in made.items()}
        for old, value in made.items():
            states[old] = self._storage.write(states[old], value)
