"""The contract between unitp and a backend's engine: what every engine does is final, what a backend provides is abstract.

An engine holds parameters, states and programs of one rank, and all of `unitp.engine.engine.Engine` is here, but for two
things: `prepare` makes a program ready to run (it carries out instructions one by one, traces them, records them), and
`stats` tells what that has cost. What states are, a `unitp.engine.states.Storage` says; how values cross the border, the
primitives. No method is both: a subclass implements what is abstract and overrides nothing, so that what is read here is
what runs on every backend. `docs/engines.md` tells it from the backend's side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import numpy as np

from unitp.engine.constants import Constants
from unitp.engine.engine import Array, EngineStats, NotFinite, Progress, Silent
from unitp.engine.finite import Look
from unitp.engine.guards import require
from unitp.engine.interpreter import Runner
from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Primitives, Tensor
from unitp.engine.states import Arrays, States, Storage
from unitp.engine.transport import CountedCollectives
from unitp.errors import InputError
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape


class CompiledProgram(ABC):
    """A program that is ready to run on one rank, any number of times, on any bank whose states have its shapes.

    `structures`: what of `BaseEngine.compiled` it calls; an engine lets go what no program calls any more.
    """

    def __init__(self, runner: Runner, structures: Set[Hashable] = frozenset()) -> None:
        """Keeps what the engine has to know of `runner`, and not the runner itself, which may be large."""
        self.program, self.aliases, self.keys, self.guards = runner.program, runner.aliases, runner.keys, runner.guards
        self.structures = structures

    @abstractmethod
    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From inputs and states, by the names that are read, to outputs, new states and `Runner.watched`, by name; None is
        what this rank holds nothing of.

        A new state that was written in place is the very state that was given; others are left as they are. An error of
        the framework becomes a RankError that names the rank and the instruction; no InputError comes out.
        """

    @abstractmethod
    def settle(self) -> None:
        """Count what the runs since the last time have cost, if that is not counted as they run. It is called at the latest
        before the program is let go.
        """


class BaseEngine(ABC):
    """Parameters, states and programs of one rank over a backend's primitives, overrides and collectives.

    For subclasses: `primitives`, `overrides`, `collectives`, `rank`, `mesh`, `progress` as given, `constants` and `states`
    of this rank, `programs` by key, and `compiled`, where a backend keeps what programs share, by its structure.
    """

    def __init__(
        self,
        primitives: Primitives,
        overrides: Overrides,
        collectives: CountedCollectives,
        rank: int,
        mesh: Mesh,
        progress: Progress | None = None,
        *,
        keep: Callable[[Array], Tensor] | None = None,
        feed: Callable[[Array], Tensor] | None = None,
        storage: Storage | None = None,
        scope: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`keep` makes a tensor of a parameter's array, which the caller may use again (default: from a copy); `feed`
        makes one of an input, for a run (default: `from_numpy`); `storage` is what states are (default: arrays of the
        primitives); runs and writes into states are inside a `scope()`.
        """
        self.primitives, self.overrides, self.collectives = primitives, overrides, collectives
        self.rank, self.mesh = rank, mesh
        self.progress: Progress = progress if progress is not None else Silent()
        self.constants = Constants(primitives, overrides)
        self.states = States(storage or Arrays(primitives))
        self.programs: dict[str, CompiledProgram] = {}
        self.compiled: dict[Hashable, Any] = {}
        self._keep = keep or (lambda array: primitives.from_numpy(np.array(array, order="C")))
        self._feed, self._scope = feed or primitives.from_numpy, scope

    # what a backend provides

    @abstractmethod
    def prepare(self, program: Program) -> CompiledProgram:
        """Make a program of this mesh ready to run. All ranks prepare the same programs in the same order.

        `folded` gives its instructions with the rank's constants in place. Raises ProgramError where a parameter that the
        program reads was not loaded.
        """

    @abstractmethod
    def stats(self) -> EngineStats:
        """Return what collectives and tracing have cost since the engine started."""

    # what every engine does

    @final
    def folded(self, program: Program) -> Runner:
        """Return the instructions of a program on this rank, with what follows from parameters alone computed (or found)."""
        runner = Runner(program, self.rank, self.primitives, self.overrides, self.collectives, self.progress)
        runner.fold(self.constants)
        return runner

    @final
    def load(self, name: str, array: Array) -> None:
        self.constants.put(name, self._keep(array) if array.size else None)

    @final
    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.states.allocate(bank, name, shape, dtype)

    @final
    def free(self, bank: int) -> None:
        self.states.free(bank)

    @final
    def reset(self, bank: int) -> None:
        with self._scope():
            self.states.reset(bank)

    @final
    def compile(self, key: str, program: Program) -> None:
        """Prepare a program. Raises InputError if it is for another mesh than that of the ranks."""
        if program.mesh != self.mesh:
            raise InputError(f"a program for the mesh {program.mesh} was given to ranks on {self.mesh}")
        self.programs[key] = self.prepare(program)

    @final
    def forget(self, key: str) -> None:
        self.programs.pop(key).settle()
        self.constants.retain({used for program in self.programs.values() for used in program.keys})
        used = {structure for program in self.programs.values() for structure in program.structures}
        for structure in self.compiled.keys() - used:
            del self.compiled[structure]

    @final
    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        ready = self.programs[key]
        with self._scope():
            results = ready.run(self._fed(ready.program, inputs, bank))
            require(ready.program, ready.guards, self.rank, results, self.primitives)
            outputs = {name: self._output(ready, name, results[name]) for name in ready.program.outputs}
            self.states.replace(ready.program, results, bank)
        return outputs

    @final
    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> NotFinite | None:
        """Run the program's instructions one by one, whatever the backend has made of them, and return the first that is not finite."""
        runner = self.folded(self.programs[key].program)
        look = Look(runner, self.primitives, self.constants)
        with self._scope():
            results = runner.run(self._fed(runner.program, inputs, bank), look.steps())
            self.states.replace(runner.program, results, bank)
        return look.found

    @final
    def all_reduce_probe(self, value: float) -> float:
        x = self.primitives.full((1,), value, "float32")
        for axis, size in self.mesh.axes:
            if size > 1:
                x = self.collectives.all_reduce(x, axis, "sum")
        return float(self.primitives.to_numpy(x)[0])

    @final
    def close(self) -> None:
        self.programs.clear()
        self.collectives.close()

    @final
    def _fed(self, program: Program, inputs: Mapping[str, Array], bank: int) -> dict[str, Tensor]:
        """Inputs and states as tensors, by name."""
        if missing := [name for name in program.inputs if name not in inputs]:
            raise InputError(f"no array is given for input {', '.join(missing)}")
        fed = {name: self._feed(inputs[name]) if inputs[name].size else None for name in program.inputs}
        return fed | self.states.needed(program, bank)

    @final
    def _output(self, ready: CompiledProgram, name: str, value: Tensor) -> Array:
        """Return an output as an array that nobody writes into later."""
        if value is None:
            return np.zeros(local_shape(ready.program, name, self.rank), ready.program.values[name].dtype)
        array = np.asarray(self.primitives.to_numpy(value))
        return array.copy() if name in ready.aliases else array
