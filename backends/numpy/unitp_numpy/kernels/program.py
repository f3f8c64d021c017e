"""A program of few rows as kernels: its instructions are rows of a table, and consecutive rows are carried out in one call.

Everything between two steps in NumPy (collectives, top-k) is rows. `unitp_numpy.kernels.placement` decides where values lie.
A run only writes into the table the addresses of the bank's states and of the arrays that NumPy returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from unitp.engine.base import CompiledProgram
from unitp.engine.interpreter import Runner
from unitp.engine.primitives import Tensor
from unitp.engine.steps import Slots, Step
from unitp_numpy.kernels.placement import Placed, Placement, Reduce, Runs
from unitp_numpy.kernels.scratch import Pool
from unitp_numpy.kernels.table import WIDTH, Argument, Input, Output, address, empty_table

Table = npt.NDArray[np.int64]


def prepared(runner: Runner, pool: Pool, runs: Runs, reduce: Reduce | None) -> FewRows | None:
    """Return a program as kernels, or None if no kernel carries out any part of it. `reduce`: None if this rank is alone."""
    placement = Placement(runner, pool, runs, reduce)
    return FewRows(placement, runs) if placement.rows else None


@final
class FewRows(CompiledProgram):
    """A program that runs as kernels where there are any. `steps`: what a run carries out, one after the other."""

    def __init__(self, placement: Placement, runs: Runs) -> None:
        super().__init__(placement.runner)
        self.aliases = self.aliases | placement.scratch_outputs()
        self._runner, self._initial = placement.runner, placement.initial()
        self._table = _table(placement)
        self._kept = [a for placed in placement.rows for a in placed.row.arguments if isinstance(a, np.ndarray)]
        bind = (placement.first, _bind(placement, self._table))
        self.steps = [bind, *_steps(placement, self._table, runs, whole=True)]
        self._single = [bind, *_steps(placement, self._table, runs, whole=False)]

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        steps = self._single if self._runner.recording else self.steps
        return self._runner.run(store, steps, self._initial)

    def settle(self) -> None:
        """Do nothing: collectives are counted when they are called."""


def _table(placement: Placement) -> Table:
    """Return the rows as numbers. The addresses of bound and free values are 0; each run writes them."""
    table = empty_table(len(placement.rows))
    for line, placed in zip(table, placement.rows, strict=True):
        line[0] = placed.row.op
        line[1 : 1 + len(placed.row.arguments)] = [_number(placement, placed, a) for a in placed.row.arguments]
    return table


def _number(placement: Placement, placed: Placed, argument: Argument) -> int:
    match argument:
        case Input(place):
            known = placement.known.get(placed.inputs[place])
            return 0 if known is None else address(known)
        case Output():
            return address(placement.known[placed.output])
        case int():
            return argument
        case _:
            return address(argument)


class Hole(NamedTuple):
    """A place in the table, counted from its beginning, where a run has to write the address of a value."""

    place: int
    name: str


def _holes(placement: Placement, first: int, stop: int) -> Iterator[Hole]:
    """Yield the places in some rows whose addresses are not known before a run."""
    for number in range(first, stop):
        placed = placement.rows[number]
        for i, argument in enumerate(placed.row.arguments, 1):
            if isinstance(argument, Input) and (name := placed.inputs[argument.place]) not in placement.known:
                yield Hole(number * WIDTH + i, name)


def _bind(placement: Placement, table: Table) -> Step:
    """Return a step that writes the addresses of the bank's states into the table, and gives new states the arrays of old ones."""
    slots, bound, flat = placement.runner.slots, placement.bound, table.reshape(-1)
    states = [slots[old] for old, _ in placement.program.states if old in bound]
    number = {slot: i for i, slot in enumerate(states)}
    holes = [w for w in _holes(placement, 0, len(placement.rows)) if w.name in bound]
    places = np.array([w.place for w in holes], np.int64)
    which = np.array([number[slots[bound[w.name].state]] for w in holes], np.int64)
    offsets = np.array([bound[w.name].offset for w in holes], np.int64)
    passed = [(slots[new], slots[old]) for new, old in placement.written.items()]

    def step(values: Slots) -> None:
        if holes:
            flat[places] = np.array([address(values[slot]) for slot in states], np.int64)[which] + offsets
        for new, old in passed:
            values[new] = values[old]

    return step


def _steps(placement: Placement, table: Table, runs: Runs, *, whole: bool) -> list[tuple[int, Step]]:
    """Return the steps in order: those in NumPy, and consecutive rows of one dtype together (`whole`), or each row by itself."""
    steps: list[tuple[int, Step]] = []
    group: list[int] = []

    def close() -> None:
        if group:
            number = placement.rows[group[0]].number
            steps.append((number, _call(placement, table, runs, group[0], group[-1] + 1)))
            group.clear()

    for item in placement.order:
        if not isinstance(item, int):
            close()
            steps.append(item)
            continue
        if group and (not whole or placement.rows[item].dtype != placement.rows[group[0]].dtype):
            close()
        group.append(item)
    close()
    return steps


def _call(placement: Placement, table: Table, runs: Runs, first: int, stop: int) -> Step:
    """Return a step that carries out rows of the table, which have one dtype."""
    run, begin, count, flat = runs[placement.rows[first].dtype], address(table[first:]), stop - first, table.reshape(-1)
    slots = placement.runner.slots
    feeds = [(slots[w.name], w.place) for w in _holes(placement, first, stop) if w.name not in placement.bound]
    if not feeds:
        return lambda values: run(begin, count)
    dead = [slot for placed in placement.rows[first:stop] for slot in placement.dead.get(placed.number, ())]

    def step(values: Slots) -> None:
        held = []
        for slot, place in feeds:
            x = values[slot]
            if not x.flags.c_contiguous:
                x = np.ascontiguousarray(x)
                held.append(x)
            flat[place] = address(x)
        run(begin, count)
        for slot in dead:
            values[slot] = None

    return step
