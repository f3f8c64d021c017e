"""Conversions that several readers of a value share: what a planning problem counts for each, and programs make once.

A conversion is a path of steps. Lowering makes each layout on the way once, however many paths lead through it: those from
where the value is made to where it is held, and from there to each reader.
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
    """What is asked of a planning problem (`unitp.planner.problem.problem`)."""

    graph: Graph
    mesh: Mesh
    phases: Sequence[Phase]
    prices: Prices
    variables: list[Variable]

    def is_fixed(self, number: int) -> bool: ...
    def left(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]: ...
    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]: ...


class Shared(NamedTuple):
    """What a reader pays for conversions of a value from `source`, which others may want too: `wanted`, by its choices.

    `table`: seconds; bytes, where a copy is held of what follows from parameters.
    """

    value: str
    source: int
    reader: int
    home: str
    table: Table
    wanted: tuple[Layout, ...]


def repeated(problem: Problem, paid: Sequence[Shared], choice: Sequence[int]) -> Iterator[tuple[int, str, float]]:
    """What is paid again though it is made once: the reader, its phase and the seconds; of copies held, "" and bytes."""
    phases = {phase.name: phase for phase in problem.phases}
    seen: set[tuple[str, str, Layout]] = set()
    homes: set[tuple[str, str]] = set()
    for shared in paid:
        price = float(shared.table[choice[shared.source], choice[shared.reader]])
        wanted = shared.wanted[choice[shared.reader]]
        if price == 0.0:
            continue
        if problem.is_fixed(shared.source):  # copies that are held; what leads to them is not
            if (shared.value, shared.home, wanted) in seen:
                yield shared.reader, shared.home, price
            seen.add((shared.value, shared.home, wanted))
            continue
        phase = phases[shared.home]
        made = _Path(problem, shared.value, phase)
        if problem.variables[shared.source].kind == "value" and (shared.value, phase.name) not in homes:
            homes.add((shared.value, phase.name))
            producer, left = problem.left(shared.value, phase.name)
            held = problem.variables[shared.source].layouts[choice[shared.source]]
            path = made.steps(left[choice[producer]], held)
            seen |= {(shared.value, phase.name, after.layout) for _, _, after in path}
        _, left = problem.source(shared.value, phase.name)
        for instruction, before, after in made.steps(left[choice[shared.source]], wanted):
            key = (shared.value, phase.name, after.layout)
            if key in seen:
                yield shared.reader, shared.home, phase.weight * problem.prices.step(instruction, before, after)
            seen.add(key)


class _Path:
    """Steps between layouts of a value, which may be open, in a phase."""

    def __init__(self, problem: Problem, value: str, phase: Phase) -> None:
        type_ = problem.graph.types[value]
        self.dtype, self.mesh = type_.dtype, problem.mesh
        self.shape = type_.sized(phase.sizes)

    def steps(self, source: Layout, target: Layout) -> Iterator[tuple[Instruction, Value, Value]]:
        at = source.bind(self.shape, self.mesh)
        for instruction, after in steps(at, target.bind(self.shape, self.mesh), self.mesh):
            yield instruction, Value(self.dtype, self.shape, at), Value(self.dtype, self.shape, after)
            at = after
