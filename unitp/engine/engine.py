"""What a backend gives a worker: an engine that carries out programs on one rank, and what it reports of itself."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.program.instructions import Program

Array = npt.NDArray[np.generic]


class Progress(Protocol):
    """Where a rank says what it is doing (a memory-mapped page that the driver's watchdog reads).

    Engines look `at` up once a run: it is another function while a call is traced. `recording` says that it is: an engine
    that runs several instructions in one call may then run each by itself.
    """

    recording: bool

    def at(self, instruction: int) -> None: ...


class Silent:
    """Progress that nobody follows."""

    recording = False

    def at(self, instruction: int) -> None:
        """Nothing is noted."""


class EngineStats(msgspec.Struct, frozen=True):
    """Since the engine started: seconds in collectives, how many, bytes given to them, and `traces`, the programs that had to
    be traced or compiled. Where a framework traces functions, of which a program has a few, `functions` counts each time.
    """

    collective_s: float = 0.0
    collectives: int = 0
    collective_bytes: int = 0
    traces: int = 0
    functions: int = 0


class NotFinite(msgspec.Struct, frozen=True):
    """The first instruction of a rank whose output has NaN or an infinity: its number and text, its operator (of a
    collective: its kind), and `what` is not finite, of what it reads too.
    """

    instruction: int
    text: str
    operator: str
    what: str


class Engine(Protocol):
    """Carries out programs on one rank. Arrays that cross this border are NumPy arrays and local parts.

    This is what a worker asks for; `unitp.engine.base.BaseEngine` does it over what a backend provides.
    """

    def load(self, name: str, array: Array) -> None:
        """Keep this rank's part of a parameter (the array may be reused by the caller afterwards)."""

    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make a zeroed state of this local shape, known by the name of the value that is read, in a bank: one set of all
        states. A session has a bank for each group of sequences that are fed together.
        """

    def free(self, bank: int) -> None:
        """Let the states of a bank go."""

    def reset(self, bank: int) -> None:
        """Zero the states of a bank in place."""

    def compile(self, key: str, program: Program) -> None:
        """Prepare a program for every bank whose states have its shapes, of which there is one. May be called between runs;
        parameters are shared by all programs.
        """

    def forget(self, key: str) -> None:
        """Let a program go, with what only it needs."""

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        """Run a compiled program on the states of a bank and return this rank's parts of its outputs. Where a program has no
        states, no bank is needed.

        An InputError says that the call cannot be answered for what it was given, and that this rank is in step with the
        others and serves on. After anything else it does not.
        """

    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> NotFinite | None:
        """Run a compiled program instruction by instruction and tell the first whose output is not finite.

        A run before with the same inputs does not matter: states are left as `run` leaves them. All ranks have to do it.
        """

    def all_reduce_probe(self, value: float) -> float:
        """Sum `value` over all ranks of the mesh (axis by axis): what `unitp doctor` checks."""

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
