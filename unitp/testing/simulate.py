"""Runs all ranks of a program in one process: a thread per rank, NumPy primitives, collectives that meet at a barrier.

The interpreter is that of every eager backend; only the transport is simulated. A collective that a rank does
not reach breaks the barrier and fails the run, instead of hanging.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from importlib import import_module
from threading import Barrier, Thread
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.engine.constants import Constants
from unitp.engine.engine import NotFinite
from unitp.engine.finite import Look
from unitp.engine.guards import PlaceError, require
from unitp.engine.interpreter import Runner
from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Collectives, Primitives
from unitp.engine.transport import Buffered
from unitp.errors import RankError
from unitp.graph.values import in_arrays
from unitp.mesh import Mesh
from unitp.plugins.discover import backend
from unitp.program.instructions import Program
from unitp.program.rank import intervals, local_shape

Array = npt.NDArray[Any]
T = TypeVar("T")
PATIENCE_S = 30.0


class Simulated(msgspec.Struct, frozen=True):
    """Whole outputs and states, by the names of the program. `spread`: the largest difference of ranks that hold the same rows."""

    outputs: dict[str, Array]
    states: dict[str, Array]
    spread: float


class _Meeting:
    """The place where the members of one group exchange arrays."""

    def __init__(self, members: int) -> None:
        self.barrier = Barrier(members, timeout=PATIENCE_S)
        self.given: list[Any] = [None] * members

    def exchange(self, place: int, value: Array, take: Callable[[list[Array]], object]) -> None:
        """Give an array, and `take` what is needed of all: nobody goes on, and writes into what it gave, before all have."""
        self.given[place] = value
        self.barrier.wait()
        take(self.given)
        self.barrier.wait()


class ThreadBuffers:
    """`unitp.engine.transport.Buffers` among threads."""

    def __init__(self, rank: int, mesh: Mesh, meetings: Mapping[tuple[str, tuple[int, ...]], _Meeting]) -> None:
        self.rank, self.mesh, self.meetings = rank, mesh, meetings
        self.sizes: Mapping[str, int] = mesh.sizes

    def all_reduce(self, x: Array, out: Array, axis: str, reduction: str) -> None:
        add = np.add if reduction == "sum" else np.maximum
        self._meet(axis, x, out, lambda place, given: reduce(add, given))

    def all_gather(self, x: Array, out: Array, axis: str) -> None:
        self._meet(axis, x, out, lambda place, given: np.stack(given))

    def reduce_scatter(self, parts: Array, out: Array, axis: str) -> None:
        self._meet(axis, parts, out, lambda place, given: reduce(np.add, [theirs[place] for theirs in given]))

    def all_to_all(self, parts: Array, out: Array, axis: str) -> None:
        self._meet(axis, parts, out, lambda place, given: np.stack([theirs[place] for theirs in given]))

    def _meet(self, axis: str, x: Array, out: Array, make: Callable[[int, list[Array]], Any]) -> None:
        """Give `x` to the group, and write into `out` what is made of this rank's place and the arrays of all."""
        group = self.mesh.group_of(self.rank, axis)
        place = group.index(self.rank)

        def take(given: list[Array]) -> None:
            out[...] = make(place, given)

        self.meetings[axis, group].exchange(place, x, take)

    def close(self) -> None:
        for meeting in self.meetings.values():
            meeting.barrier.abort()


@lru_cache
def numpy_primitives() -> Primitives:
    """Return the NumPy backend's primitives, found as every backend is."""
    package = backend("numpy").engine.partition(":")[0].rpartition(".")[0]
    module: Any = import_module(f"{package}.primitives")
    return module  # type: ignore[no-any-return]


def simulate(
    program: Program,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    states: Mapping[str, Array] | None = None,
    overrides: Overrides | None = None,
) -> Simulated:
    """Run `program` on whole arrays, which are cut as its layouts say, by decompositions or the `overrides` of NumPy.

    Raises what the first failing rank raised, and PlaceError as a session does, after all ranks have run.
    """
    given = {**inputs, **parameters, **(states or {})}
    results = _together(program.mesh, lambda rank, collectives: _run(program, rank, collectives, given, overrides))
    outputs = {name: _joined(program, name, [r[name] for r in results]) for name in program.outputs}
    after = {old: _joined(program, new, [r[new] for r in results]) for old, new in program.states}
    spread = max((s for _, s in (*outputs.values(), *after.values())), default=0.0)
    return Simulated({n: a for n, (a, _) in outputs.items()}, {n: a for n, (a, _) in after.items()}, spread)


def first_not_finite(program: Program, given: Mapping[str, Array]) -> NotFinite | None:
    """Run `program` on whole arrays (inputs, parameters and states) step by step; return the first output that is not finite."""

    def look(rank: int, collectives: Collectives) -> NotFinite | None:
        runner, constants, store = _prepared(program, rank, collectives, given)
        look = Look(runner, numpy_primitives(), constants)
        runner.run(store, look.steps())
        return look.found

    found = filter(None, _together(program.mesh, look))
    return min(found, key=lambda one: one.instruction, default=None)


def _together(mesh: Mesh, run: Callable[[int, Collectives], T]) -> list[T]:
    """Call `run` for each rank in a thread of its own, and return the results."""
    meetings = {(a, g): _Meeting(len(g)) for a, _ in mesh.axes for g in mesh.groups(a)}
    results: dict[int, T] = {}
    failures: list[Exception] = []
    refused: list[PlaceError] = []

    def work(rank: int) -> None:
        collectives = Buffered(ThreadBuffers(rank, mesh, meetings))
        try:
            results[rank] = run(rank, collectives)
        except PlaceError as error:
            refused.append(error)
        except Exception as error:  # noqa: BLE001  (raised again by `simulate`)
            failures.append(error)
            collectives.close()

    threads = [Thread(target=work, args=(rank,), daemon=True) for rank in range(mesh.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if refused:
        raise min(refused, key=lambda error: error.order)
    return [results[rank] for rank in range(mesh.size)]


def _run(
    program: Program,
    rank: int,
    collectives: Collectives,
    given: Mapping[str, Array],
    overrides: Overrides | None = None,
) -> dict[str, Array]:
    """Run one rank. Return its parts of outputs and new states."""
    runner, _, store = _prepared(program, rank, collectives, given, overrides)
    found = runner.run(store)
    require(program, runner.guards, rank, found, numpy_primitives())
    left = (*program.outputs, *(new for _, new in program.states))
    return {name: _filled(program, name, rank, found[name]) for name in left}


def _prepared(
    program: Program,
    rank: int,
    collectives: Collectives,
    given: Mapping[str, Array],
    overrides: Overrides | None = None,
) -> tuple[Runner, Constants, dict[str, Array | None]]:
    """Return a rank of a program with its constants, and its parts of inputs and states."""
    primitives, overrides = numpy_primitives(), overrides or Overrides()
    runner, constants = Runner(program, rank, primitives, overrides, collectives), Constants(primitives, overrides)
    for name in program.parameters:
        constants.put(name, _cut(program, name, rank, given[name]))
    runner.fold(constants)
    states = {name: given.get(name, np.zeros(program.values[name].shape)) for name, _ in program.states}
    store = {name: _cut(program, name, rank, given[name]) for name in program.inputs}
    store |= {name: _cut(program, name, rank, whole) for name, whole in states.items()}
    return runner, constants, store


def _filled(program: Program, name: str, rank: int, value: Array | None) -> Array:
    shape = local_shape(program, name, rank)
    part = np.zeros(shape, in_arrays(program.values[name].dtype)) if value is None else np.asarray(value)
    if part.shape != shape:
        raise RankError(f"rank {rank} left {name} in shape {part.shape}, and its layout says {shape}")
    return part


def _cut(program: Program, name: str, rank: int, whole: Array) -> Array | None:
    """Return the part of a whole array that a rank holds; None if it is empty."""
    part = whole[tuple(slice(a, b) for a, b in intervals(program, name, rank))]
    return part.astype(in_arrays(program.values[name].dtype), order="C") if part.size else None


def _apart(x: Array, y: Array) -> float:
    """Return the largest difference of two arrays; numbers that are not finite must be equal, or it is infinite."""
    differ = ~((x == y) | (np.isnan(x) & np.isnan(y)))
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(x[differ] - y[differ]), nan=np.inf).max(initial=0.0))


def _joined(program: Program, name: str, parts: Sequence[Array]) -> tuple[Array, float]:
    """Return the whole of a value from its parts, and the largest difference of ranks that hold the same rows."""
    value = program.values[name]
    whole = np.zeros(value.shape, value.dtype)
    filled = np.zeros(value.shape, bool)
    spread = 0.0
    for rank, part in enumerate(parts):
        place = tuple(slice(a, b) for a, b in intervals(program, name, rank))
        held = filled[place]
        if held.any():
            spread = max(spread, _apart(whole[place][held].astype(float), part[held]))
        whole[place] = np.where(held, whole[place], part)
        filled[place] = True
    if not filled.all():
        raise AssertionError(f"no rank holds some of {name}")
    return whole, spread
