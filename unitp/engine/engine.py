"""What a backend gives a worker: an engine that carries out programs on one rank, and what it reports of itself."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.program.instructions import Program

Array = npt.NDArray[np.generic]


class Progress(Protocol):
    """Tells the driver's watchdog what a rank is doing, by a memory-mapped page.

    Engines look up `at` once in each run, because it is another function while a call is traced. `recording` is true then: an
    engine that runs several instructions in one call may run each by itself instead.
    """

    recording: bool

    def at(self, instruction: int) -> None: ...


class Silent:
    """Progress that is not recorded."""

    recording = False

    def at(self, instruction: int) -> None:
        """Do nothing."""


class EngineStats(msgspec.Struct, frozen=True):
    """Counts since the engine started.

    collective_s       seconds in collectives
    collectives        calls of collectives
    collective_bytes   bytes of their inputs
    traces             programs that had to be traced or compiled
    functions          functions that had to be traced, if a framework traces several for a program
    """

    collective_s: float = 0.0
    collectives: int = 0
    collective_bytes: int = 0
    traces: int = 0
    functions: int = 0


class NotFinite(msgspec.Struct, frozen=True):
    """The first instruction of a rank whose output has NaN or an infinity.

    operator   its operator, or the kind of a collective
    what       what is not finite in its output, and in the values that it reads
    """

    instruction: int
    text: str
    operator: str
    what: str


class Engine(Protocol):
    """Carries out programs on one rank. Its methods take and return NumPy arrays, which are this rank's parts of tensors.

    Workers use this interface; `unitp.engine.base.BaseEngine` implements it with what a backend provides.
    """

    def load(self, name: str, array: Array) -> None:
        """Keep this rank's part of a parameter (the array may be reused by the caller afterwards)."""

    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make a zeroed state of this local shape in a bank; `name` is that of the value that programs read.

        A bank is one set of all states. A session has a bank for each group of sequences that are fed together.
        """

    def free(self, bank: int) -> None:
        """Free the states of a bank."""

    def reset(self, bank: int) -> None:
        """Zero the states of a bank in place."""

    def compile(self, key: str, program: Program) -> None:
        """Prepare a program for every bank whose states have its shapes; at least one such bank exists.

        It may be called between runs. All programs share the parameters. Raises InputError if the program is for another mesh.
        """

    def forget(self, key: str) -> None:
        """Drop a program, and everything that only this program uses."""

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        """Run a compiled program on the states of a bank and return this rank's parts of its outputs. A program
        without states needs no bank.

        Raises InputError if the inputs are not legal; this rank is then in step with the others, and can serve other calls. After
        any other error it cannot.
        """

    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> NotFinite | None:
        """Run a compiled program instruction by instruction, and return the first whose output is not finite, or None.

        It may follow a run with the same inputs: states are afterwards as `run` leaves them. All ranks have to call it.
        """

    def all_reduce_probe(self, value: float) -> float:
        """Return the sum of `value` over all ranks of the mesh, axis by axis. `unitp doctor` checks it."""

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
