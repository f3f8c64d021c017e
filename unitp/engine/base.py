"""The contract between unitp and a backend's engine: what every engine does is final, what a backend provides is abstract.

An engine holds the parameters, states and programs of one rank. This class implements all of `unitp.engine.engine.Engine` except
two methods: `prepare` makes a program ready to run (eagerly, by tracing, or by recording), and `stats` reports the costs so far.
A `unitp.engine.states.Storage` says what states are, and the primitives convert values to NumPy and back. A subclass implements
the abstract methods and overrides nothing, so every backend runs the code that is read here. `docs/engines.md` describes this for
authors of backends.
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

    `structures`: the keys of `BaseEngine.compiled` that it calls. An engine drops those that no program calls any more.
    """

    def __init__(self, runner: Runner, structures: Set[Hashable] = frozenset()) -> None:
        """Keep what the engine has to know of `runner`, but not the runner itself, which may be large."""
        self.program, self.aliases, self.keys, self.guards = runner.program, runner.aliases, runner.keys, runner.guards
        self.structures = structures

    @abstractmethod
    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run on inputs and states, by the names that the program reads.

        Return outputs, new states and the values of `Runner.watched`, by name; a value of which this rank holds no part is None.
        A new state that was written in place is the same object as the old state. Other states do not change. An error of the
        framework becomes a RankError that names the rank and the instruction; an InputError is never raised.
        """

    @abstractmethod
    def settle(self) -> None:
        """Count the costs of the runs since the last call, if they are not counted during a run.

        It is called at the latest before the program is dropped.
        """


class BaseEngine(ABC):
    """Parameters, states and programs of one rank over a backend's primitives, overrides and collectives.

    Subclasses may use `primitives`, `overrides`, `collectives`, `rank`, `mesh`, `progress` as given, the `constants` and `states`
    of this rank, `programs` by key, and `compiled`, in which a backend keeps what programs share, by structure.
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
        """Make an engine without parameters, states and programs.

        keep      makes a tensor of a parameter's array, which the caller may use again (default: from a copy)
        feed      makes a tensor of an input, for one run (default: `from_numpy`)
        storage   what states are (default: arrays of the primitives)
        scope     makes a context in which programs run and states are written
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

        `folded` gives its instructions with the rank's constants in place. Raises ProgramError if a parameter that the
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
        """Return inputs and states as tensors, by name. Raises InputError if an input is missing."""
        if missing := [name for name in program.inputs if name not in inputs]:
            raise InputError(f"no array is given for input {', '.join(missing)}")
        fed = {name: self._feed(inputs[name]) if inputs[name].size else None for name in program.inputs}
        return fed | self.states.needed(program, bank)

    @final
    def _output(self, ready: CompiledProgram, name: str, value: Tensor) -> Array:
        """Return an output as an array that no later run writes to."""
        if value is None:
            return np.zeros(local_shape(ready.program, name, self.rank), ready.program.values[name].dtype)
        array = np.asarray(self.primitives.to_numpy(value))
        return array.copy() if name in ready.aliases else array
