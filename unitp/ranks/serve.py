"""The loop of a worker: its engine carries out the driver's requests, one at a time.

A worker that raises reports it to the driver (`Failed`) and then waits to be ended. So no broken connection disturbs the
other ranks before the driver has understood which rank was first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from unitp.engine.engine import Array, Engine
from unitp.errors import InputError, UnitpError
from unitp.graph.values import in_arrays
from unitp.graph.weights import read_parameter
from unitp.host import remedy
from unitp.program import instructions
from unitp.program.instructions import Program
from unitp.program.rows import Rows, rows_of
from unitp.ranks.decoding import decode
from unitp.ranks.progress import Activity, Page, PageProgress
from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import Channel, WireError
from unitp.wire.messages import (
    Allocate,
    Answer,
    ArrayPart,
    Arrays,
    Check,
    Checked,
    Close,
    Compile,
    Decode,
    Done,
    Failed,
    Forget,
    Free,
    Load,
    Measure,
    Measured,
    Memory,
    ParameterPart,
    Probe,
    Refused,
    Reply,
    Request,
    Reset,
    Run,
    Start,
    Told,
    Trace,
)

DRIVER_ARRAYS = "driver.arrays"
NO_MEMORY = 112
"""Exit code of a process that lacks the memory to tell what happened to it."""

RESERVE = 1 << 24
IDLE_S = 60.0
LONG_S = 0.1
"""Requests that take longer may have used, and freed, much memory; steps of decoding have not, however many they are."""


def rank_arrays(rank: int) -> str:
    """The name of the file in which a rank sends large arrays."""
    return f"rank{rank}.arrays"


class Worker:
    """One rank at work: its `channel` to the driver, its progress `page`, and the `engine` that runs programs."""

    def __init__(
        self,
        rank: int,
        channel: Channel[Request],
        engine: Engine,
        page: Page,
        folder: Path,
        progress: PageProgress,
    ) -> None:
        self.rank, self.channel, self.engine, self.page = rank, channel, engine, page
        self.progress = progress
        self.inbox, self.outbox = Inbox(folder / DRIVER_ARRAYS), Outbox(folder / rank_arrays(rank))
        self.idle = resident_bytes()["VmRSS"]
        self.programs: dict[str, Program] = {}
        self.rows: dict[str, Rows] = {}
        self.numbers: dict[str, int] = {}
        self.wanted: dict[str, tuple[str, ...]] = {}

    def work(self) -> None:
        """Serve requests until the driver sends Close."""
        while True:
            self.page.enter(Activity.IDLE)
            request = self.channel.receive()
            begun = time.monotonic()
            reply = self.carry_out(request)
            self.channel.send(reply)
            if isinstance(request, Close):
                return
            if time.monotonic() - begun > LONG_S and not isinstance(request, Decode):
                give_back_memory()

    def carry_out(self, request: Request) -> Reply:
        match request:
            case Run(key, inputs, bank, traced):
                return self.run(key, self.received(inputs), bank, traced)
            case Decode():
                return self.decode(request)
            case Check(key, inputs, bank):
                self.page.enter(Activity.RUNNING, self.numbers[key])
                return Checked(self.engine.first_not_finite(key, self.received(inputs), bank))
            case Reset(bank):
                self.page.enter(Activity.ALLOCATING)
                self.engine.reset(bank)
            case Compile(key, number, program, wanted):
                self.page.enter(Activity.COMPILING, number)
                self.numbers[key], self.wanted[key] = number, wanted
                give_back_memory()
                self.programs[key] = instructions.decode(program)
                self.engine.compile(key, self.programs[key])
            case Load(parts):
                for number, part in enumerate(parts):
                    self.page.enter(Activity.LOADING, number)
                    self.engine.load(part.parameter.name, slice_of(part))
            case Forget(key):
                self.engine.forget(key)
                del self.numbers[key], self.wanted[key], self.programs[key]
                self.rows.pop(key, None)
            case Allocate(bank, states):
                self.page.enter(Activity.ALLOCATING)
                for state in states:
                    self.engine.allocate(bank, state.name, state.shape, state.dtype)
            case Free(banks):
                for bank in banks:
                    self.engine.free(bank)
                give_back_memory()
            case Probe(value):
                self.page.enter(Activity.PROBING)
                return Answer(float(self.engine.all_reduce_probe(value)))
            case Measure():
                now = resident_bytes()
                return Measured(self.engine.stats(), Memory(self.idle, now["VmRSS"], now["VmHWM"]))
            case Close():
                self.page.enter(Activity.CLOSING)
                self.engine.close()
            case Start():
                raise WireError("Start came twice")
        return Done()

    def received(self, inputs: Mapping[str, ArrayPart]) -> dict[str, Array]:
        return {name: self.inbox.get(part) for name, part in inputs.items()}

    def run(self, key: str, inputs: dict[str, Array], bank: int, traced: bool = False) -> Reply:
        self.page.enter(Activity.RUNNING, self.numbers[key])
        try:
            outputs, trace = self.traced(key, inputs, bank) if traced else (self.engine.run(key, inputs, bank), None)
        except InputError as error:
            return refused(error)
        self.outbox.clear()
        return Arrays({name: self.outbox.put(outputs[name]) for name in self.wanted[key]}, trace)

    def decode(self, request: Decode) -> Reply:
        """Make the steps of a request. A rank that has outputs to send sends the tokens of each step at once."""
        key, number = request.key, self.numbers[request.key]
        if key not in self.rows:
            self.rows[key] = rows_of(self.programs[key], self.rank)

        def run(inputs: dict[str, Array]) -> dict[str, Array]:
            self.page.enter(Activity.RUNNING, number)
            return self.engine.run(key, inputs, request.bank)

        def say(tokens: tuple[int, ...]) -> None:
            if self.wanted[key]:
                self.channel.send(Told(tokens))

        inputs = {name: np.array(array) for name, array in self.received(request.inputs).items()}
        try:
            return decode(run, self.rows[key], inputs, request.rules, say)
        except InputError as error:
            return refused(error)

    def traced(self, key: str, inputs: dict[str, Array], bank: int) -> tuple[dict[str, Array], Trace]:
        """Run a program, and return when its instructions began."""
        self.progress.record()
        begun = time.monotonic_ns()
        try:
            outputs = self.engine.run(key, inputs, bank)
        finally:
            ended, marks = time.monotonic_ns(), self.progress.recorded()
        return outputs, Trace(begun, ended, tuple(marks))


def refused(error: InputError) -> Refused:
    """The reply for what an engine refuses. All ranks are in step then: see `unitp.engine.engine.Engine.run`."""
    return Refused(error.message, error.hint, getattr(error, "order", ()))


def give_back_memory() -> None:
    """Return freed memory to the system. It takes some milliseconds, and works with glibc only.

    Repacking weights frees more memory than a rank holds, and a long prompt leaves fragments that the next cannot use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def slice_of(part: ParameterPart) -> Array:
    """This rank's slice of a parameter, in the dtype in which it is kept. An empty slice is not read."""
    shape = tuple(b - a for a, b in part.intervals)
    if 0 in shape:
        return np.empty(shape, in_arrays(part.dtype))
    return read_parameter(part.parameter, part.intervals, part.dtype)


class Reserve:
    """Address space (no memory, as it is never touched) that is released so that a rank out of memory can still report."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, RESERVE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def give_back(self) -> None:
        self._map.close()


def report(channel: Channel[Request], error: BaseException, reserve: Reserve) -> NoReturn:
    """Send an exception to the driver, which then ends this process.

    If that fails, the process ends at once, because Python's normal exit may wait for other ranks.
    """
    code = 1
    try:
        reserve.give_back()
        channel.send(failure(error))
        while True:
            time.sleep(IDLE_S)
    except MemoryError:
        code = NO_MEMORY
        raise
    finally:
        os._exit(code)


def failure(error: BaseException) -> Failed:
    """The message that describes an exception to the driver."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, UnitpError):
        return Failed(type(error).__name__, error.message, error.hint, trace)
    return Failed(type(error).__name__, str(error), remedy(str(error)), trace)


def resident_bytes() -> dict[str, int]:
    """The resident bytes of this process now (VmRSS) and at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if rest.endswith("kB")
    }
