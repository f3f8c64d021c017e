"""Ranks that walk through a program without computing: outputs are counters of the calls. A server just serves."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

from unitp.mesh import Mesh
from unitp.program.engine import Array, EngineStats, Progress
from unitp.program.instructions import Program
from unitp.program.rank import local_shape

HOARD: list[object] = [None]

if "FAKE_SERVES" in os.environ:
    signal.pause()


def misbehave(rank: int, stage: str) -> None:
    """Do what FAKE asks of this rank at this stage."""
    who, _, rest = os.environ.get("FAKE", "").partition(":")
    where, _, what = rest.partition(":")
    if (who, where) != (str(rank), stage):
        return
    actions: dict[str, Callable[[], object]] = {
        "raise": lambda: 1 / 0,
        "hang": lambda: time.sleep(1000),
        "exit": lambda: print("about to leave", flush=True) or os._exit(7),
        "taken": taken,
        "grip": lambda: ctypes.PyDLL(None).sleep(1000),  # in C, and without letting Python's other threads run
        "starve": starve,
    }
    actions[what]()


def starve() -> None:
    """Use up all memory that the process may have, and keep it."""
    with open("/proc/self/statm") as pages:
        now = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now, resource.RLIM_INFINITY))
    size = 1 << 20
    while size:
        try:
            HOARD[0] = (HOARD[0], bytes(size))
        except MemoryError:
            size //= 2
    raise MemoryError


def taken() -> None:
    """As if another process had taken the port, the first time that anybody asks."""
    marker = os.environ["FAKE_MARKER"]
    if not os.path.exists(marker):
        open(marker, "x").close()
        raise OSError("[Errno 98] Address already in use")


class FakeEngine:
    """`unitp.program.engine.Engine` that sleeps a millisecond per instruction."""

    def __init__(self, rank: int, mesh: Mesh, progress: Progress) -> None:
        self.rank, self.mesh, self.progress = rank, mesh, progress
        self.programs: dict[str, Program] = {}
        self.loaded: dict[str, tuple[int, ...]] = {}
        self.pause = float(os.environ.get("FAKE_SLEEP", "0.001"))
        self.calls = 0

    def load(self, name: str, array: Array) -> None:
        misbehave(self.rank, "load")
        self.loaded[name] = array.shape

    def allocate(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.loaded[name] = shape

    def reset(self) -> None:
        self.calls = 0

    def compile(self, key: str, program: Program) -> None:
        misbehave(self.rank, "compile")
        self.programs[key] = program

    def run(self, key: str, inputs: dict[str, Array]) -> dict[str, Array]:
        program = self.programs[key]
        for number in range(len(program.instructions)):
            self.progress.at(number)
            if number == 1:
                misbehave(self.rank, "run")
            if self.pause:
                time.sleep(self.pause)
        self.calls += 1
        return {
            name: np.full(local_shape(program, name, self.rank), self.calls, program.values[name].dtype)
            for name in program.outputs
        }

    def all_reduce_probe(self, value: float) -> float:
        return value * self.mesh.size

    def stats(self) -> EngineStats:
        return EngineStats(traces=len(self.programs))

    def close(self) -> None:
        misbehave(self.rank, "close")
        self.programs.clear()


def connect(rank: int, mesh: Mesh, progress: Progress) -> FakeEngine:
    print(f"rank {rank} joins", file=sys.stderr, flush=True)
    misbehave(rank, "join")
    return FakeEngine(rank, mesh, progress)
