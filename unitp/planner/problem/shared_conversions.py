"""Conversions that several readers share: a planning problem charges them to each reader, a program makes them once.

A conversion is a path of steps. Lowering makes each layout on the way once, however many paths lead through it: the path from
the produced layout to the one that is held, and the paths from there to the readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from unitp.graph.graph import Graph
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.prices.work import Prices
from unitp.planner.problem.variables import Variable
from unitp.plans import Phase
from unitp.program.convert import steps
from unitp.program.instructions import Instruction, Value

Table = npt.NDArray[np.float64]


class Problem(Protocol):
    """The part of a planning problem (`unitp.planner.problem.problem`) that `repeated` uses."""

    graph: Graph
    mesh: Mesh
    phases: Sequence[Phase]
    prices: Prices
    variables: list[Variable]

    def is_fixed(self, number: int) -> bool: ...
    def produced(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]: ...
    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]: ...


class Shared(NamedTuple):
    """What a reader is charged for converting a value, where other readers may require the same conversion.

    source, reader   the variable that decides how the value is held, and the one of the reader
    home             the phase; SHARED for a copy of a value that depends on parameters alone
    table            seconds (bytes for such a copy) by the choices of both
    required         the layout that each choice of the reader requires
    """

    value: str
    source: int
    reader: int
    home: str
    table: Table
    required: tuple[Layout, ...]


def repeated(problem: Problem, paid: Sequence[Shared], choice: Sequence[int]) -> Iterator[tuple[int, str, float]]:
    """Yield what is charged again although it is made once: (reader, phase, seconds), or (reader, SHARED, bytes) for a copy."""
    phases = {phase.name: phase for phase in problem.phases}
    seen: set[tuple[str, str, Layout]] = set()
    homes: set[tuple[str, str]] = set()
    for shared in paid:
        price = float(shared.table[choice[shared.source], choice[shared.reader]])
        required = shared.required[choice[shared.reader]]
        if price == 0.0:
            continue
        if problem.is_fixed(shared.source):  # only the copy at the end of the path is held
            if (shared.value, shared.home, required) in seen:
                yield shared.reader, shared.home, price
            seen.add((shared.value, shared.home, required))
            continue
        phase = phases[shared.home]
        made = _Path(problem, shared.value, phase)
        if problem.variables[shared.source].kind == "value" and (shared.value, phase.name) not in homes:
            homes.add((shared.value, phase.name))
            producer, produced = problem.produced(shared.value, phase.name)
            held = problem.variables[shared.source].layouts[choice[shared.source]]
            path = made.steps(produced[choice[producer]], held)
            seen |= {(shared.value, phase.name, after.layout) for _, _, after in path}
        _, produced = problem.source(shared.value, phase.name)
        for instruction, before, after in made.steps(produced[choice[shared.source]], required):
            key = (shared.value, phase.name, after.layout)
            if key in seen:
                yield shared.reader, shared.home, phase.weight * problem.prices.step(instruction, before, after)
            seen.add(key)


class _Path:
    """The conversion steps between layouts of a value in a phase; the layouts need not be bound."""

    def __init__(self, problem: Problem, value: str, phase: Phase) -> None:
        type_ = problem.graph.types[value]
        self.dtype, self.mesh = type_.dtype, problem.mesh
        self.shape = type_.sized(phase.sizes)

    def steps(self, source: Layout, target: Layout) -> Iterator[tuple[Instruction, Value, Value]]:
        """Yield each instruction of a conversion with the values before and after it."""
        at = source.bind(self.shape, self.mesh)
        for instruction, after in steps(at, target.bind(self.shape, self.mesh), self.mesh):
            yield instruction, Value(self.dtype, self.shape, at), Value(self.dtype, self.shape, after)
            at = after
