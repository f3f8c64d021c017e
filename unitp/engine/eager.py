"""The engine of a backend that carries out instructions one by one: parameters, states and programs of one rank.

A backend gives primitives, overrides and collectives; all else of `unitp.engine.engine.Engine` is here. States are
updated in place and shared by all programs, and so are parameters and what follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from unitp.engine.constants import Constants, Key
from unitp.engine.engine import Array, EngineStats, NotFinite, Progress
from unitp.engine.finite import Look
from unitp.engine.guards import Guards, require
from unitp.engine.interpreter import Runner
from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Primitives, Tensor
from unitp.engine.transport import Alone, CountedCollectives, Tally
from unitp.errors import InputError
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape

__all__ = ["Alone", "CountedCollectives", "EagerEngine", "Tally"]


class Prepared(Protocol):
    """A program, ready to run: a `Runner`, or what a backend makes of one. `keys`: the derived constants that it reads."""

    program: Program
    aliases: set[str]
    keys: frozenset[Key]
    guards: Guards

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


class Bank:
    """One set of all states: their local shapes and dtypes, and those that were made (None where this rank holds nothing)."""

    def __init__(self) -> None:
        self.types: dict[str, tuple[tuple[int, ...], str]] = {}
        self.states: dict[str, Tensor] = {}


class EagerEngine:
    """`unitp.engine.engine.Engine` over a backend's primitives, overrides and collectives."""

    def __init__(
        self,
        primitives: Primitives,
        overrides: Overrides,
        collectives: CountedCollectives,
        rank: int,
        mesh: Mesh,
        progress: Progress | None = None,
        keep: Callable[[Array], Tensor] | None = None,
    ) -> None:
        """`keep` makes a tensor of a parameter's array, which the caller may use again (default: from a copy)."""
        self._p, self._overrides, self._collectives = primitives, overrides, collectives
        self._rank, self._mesh, self._progress = rank, mesh, progress
        self._keep = keep or (lambda array: primitives.from_numpy(np.array(array, order="C")))
        self._constants = Constants(primitives, overrides)
        self._banks: dict[int, Bank] = {}
        self._runners: dict[str, Prepared] = {}

    def load(self, name: str, array: Array) -> None:
        self._constants.put(name, self._keep(array) if array.size else None)

    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """The state is made when it is first needed: packing weights has the room until then."""
        made = self._banks.setdefault(bank, Bank())
        made.types[name] = (shape, dtype)
        made.states.pop(name, None)

    def free(self, bank: int) -> None:
        del self._banks[bank]

    def reset(self, bank: int) -> None:
        made = self._banks[bank]
        for name, state in made.states.items():
            if state is not None:
                shape, dtype = made.types[name]
                made.states[name] = self._written(state, self._p.full(shape, 0, dtype))

    def compile(self, key: str, program: Program) -> None:
        if program.mesh != self._mesh:
            raise InputError(f"a program for the mesh {program.mesh} was given to ranks on {self._mesh}")
        runner = Runner(program, self._rank, self._p, self._overrides, self._collectives, self._progress)
        runner.fold(self._constants)
        self._runners[key] = runner

    def forget(self, key: str) -> None:
        del self._runners[key]
        self._constants.retain({used for runner in self._runners.values() for used in runner.keys})

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        runner = self._runners[key]
        results = runner.run(self._fed(runner.program, inputs, bank))
        require(runner.program, runner.guards, self._rank, results, self._p)
        outputs = {name: self._output(runner, name, results[name]) for name in runner.program.outputs}
        self._replace(runner.program, results, bank)
        return outputs

    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> NotFinite | None:
        runner = self._plain(key)
        look = Look(runner, self._p, self._constants)
        self._replace(runner.program, runner.run(self._fed(runner.program, inputs, bank), look.steps()), bank)
        return look.found

    def _plain(self, key: str) -> Runner:
        """A program as instructions that are carried out one by one, whatever the backend makes of it."""
        prepared = self._runners[key]
        if isinstance(prepared, Runner):
            return prepared
        runner = Runner(prepared.program, self._rank, self._p, self._overrides, self._collectives, self._progress)
        runner.fold(self._constants)
        return runner

    def _fed(self, program: Program, inputs: Mapping[str, Array], bank: int) -> dict[str, Tensor]:
        """Inputs and states as tensors, by name."""
        store = {name: self._p.from_numpy(array) if array.size else None for name, array in inputs.items()}
        if missing := [name for name in program.inputs if name not in store]:
            raise InputError(f"no array is given for input {', '.join(missing)}")
        states = self._states(bank)
        if missing := [old for old, _ in program.states if old not in states]:
            raise InputError(f"bank {bank} has no state {', '.join(missing)}, which the program reads")
        return store | states

    def _replace(self, program: Program, results: Mapping[str, Tensor], bank: int) -> None:
        """Write the new states that a run has left elsewhere into the old ones."""
        p, states = self._p, self._states(bank)
        made = {old: results[new] for old, new in program.states if results[new] is not states[old]}
        if len(made) > 1:  # one may be a view of a state that another is written into
            made = {old: None if x is None else p.from_numpy(np.array(p.to_numpy(x))) for old, x in made.items()}
        for old, value in made.items():
            states[old] = self._written(states[old], value)

    def _states(self, bank: int) -> dict[str, Tensor]:
        """The states of a bank, by the names that are read; made where they are not yet."""
        if bank not in self._banks:
            return {}
        made = self._banks[bank]
        for name, (shape, dtype) in made.types.items():
            if name not in made.states:
                made.states[name] = None if 0 in shape else self._state(shape, dtype)
        return made.states

    def _state(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """A new state."""
        return self._p.full(shape, 0, dtype)

    def _written(self, state: Tensor, value: Tensor) -> Tensor:
        """`value` copied into `state`, which stays a tensor of its own."""
        shape = self._p.shape(state)
        if len(shape) < 2:
            return value
        starts = self._p.full(shape[:1], 0, "int64")
        return self._p.update(state, value, starts, 1)

    def _output(self, runner: Prepared, name: str, value: Tensor) -> Array:
        """An output as an array that nobody writes into later."""
        found = runner.program.values[name]
        if value is None:
            return np.zeros(local_shape(runner.program, name, self._rank), found.dtype)
        array = np.asarray(self._p.to_numpy(value))
        return array.copy() if name in runner.aliases else array

    def all_reduce_probe(self, value: float) -> float:
        x = self._p.full((1,), value, "float32")
        for axis, size in self._mesh.axes:
            if size > 1:
                x = self._collectives.all_reduce(x, axis, "sum")
        return float(self._p.to_numpy(x)[0])

    def stats(self) -> EngineStats:
        tally = self._collectives.tally
        return EngineStats(tally.seconds, tally.calls, tally.bytes, len(self._runners))

    def close(self) -> None:
        self._runners.clear()
        self._collectives.close()
