"""Ranks that walk through a program and answer by what their states hold.

A row of a bank of states holds the ids that were fed to it, by place. What a decoder answers at a place is a function of the
whole row up to there (`unitp_fake.answers`), so that a foreign write changes what is said. Other graphs get a count of calls.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

from unitp.engine.engine import Array, EngineStats, Progress
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import intervals, local_shape
from unitp_fake.answers import scores

HOARD: list[object] = [None]


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
        "bus": lambda: os.kill(os.getpid(), signal.SIGBUS),
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
    """`unitp.engine.engine.Engine` that sleeps a millisecond per instruction, and says words of `vocab`."""

    def __init__(self, rank: int, mesh: Mesh, progress: Progress, vocab: int = 97) -> None:
        self.rank, self.mesh, self.progress = rank, mesh, progress
        self.programs: dict[str, Program] = {}
        self.loaded: dict[str, tuple[int, ...]] = {}
        self.pause = float(os.environ.get("FAKE_SLEEP", "0.001"))
        self.vocab = vocab
        self.banks: dict[int, Array] = {}
        self.calls = 0

    def load(self, name: str, array: Array) -> None:
        misbehave(self.rank, "load")
        self.loaded[name] = array.shape

    def allocate(self, bank: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """All states of a decoder have a dim of rows and one of places; the ids are kept once for all of them."""
        self.loaded[name] = shape
        self.banks[bank] = np.full((shape[0], shape[2] if len(shape) == 4 else 1), -1, np.int64)

    def free(self, bank: int) -> None:
        del self.banks[bank]

    def reset(self, bank: int) -> None:
        self.banks[bank][:] = -1
        self.calls = 0

    def forget(self, key: str) -> None:
        del self.programs[key]

    def compile(self, key: str, program: Program) -> None:
        misbehave(self.rank, "compile")
        self.programs[key] = program

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        program = self.programs[key]
        for number in range(len(program.instructions)):
            self.progress.at(number)
            if number == 1:
                misbehave(self.rank, "run")
            if self.pause:
                time.sleep(self.pause)
        self.calls += 1
        if "write_indices" not in inputs:
            return {
                name: np.full(local_shape(program, name, self.rank), self.calls, program.values[name].dtype)
                for name in program.outputs
            }
        answers = self.answers(program, inputs, self.banks[bank])
        return {name: self.mine(program, name, answers) for name in program.outputs}

    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> None:
        """All that it says is finite."""
        self.run(key, inputs, bank)

    def answers(self, program: Program, inputs: dict[str, Array], rows: Array) -> dict[str, Array]:
        """Feed the rows; the outputs for them, by the names that the graph gives them."""
        ids, starts = inputs["input_ids"], inputs["write_indices"]
        for row, start, new in zip(rows, starts.tolist(), ids, strict=True):
            row[start : start + len(new)] = new
        places = [start + inputs["logits_index"][row] for row, start in enumerate(starts.tolist())]
        logits = np.array(
            [[scores(row[: p + 1].tolist(), self.vocab) for p in at] for row, at in zip(rows, places, strict=True)]
        )
        order = np.argsort(-logits, axis=-1, kind="stable")
        return {"logits": logits, "top_values": np.take_along_axis(logits, order, -1), "top_ids": order}

    def mine(self, program: Program, name: str, answers: dict[str, Array]) -> Array:
        """This rank's part of an output, where its rows are all that it was given."""
        whole = next(array for known, array in answers.items() if name.startswith(known))
        bounds = intervals(program, name, self.rank)
        return whole[:, : bounds[1][1], bounds[2][0] : bounds[2][1]].astype(program.values[name].dtype)

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
