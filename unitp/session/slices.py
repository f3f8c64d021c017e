"""A program from the driver's view: which slice of each input each rank gets, and which ranks send which outputs.

Ranks that need the same slices of all inputs get the same frame, encoded once. Of the ranks that hold the same part of an
output, only the first sends it. The driver joins the parts by their intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unitp.engine.engine import Array
from unitp.engine.guards import guards
from unitp.program.instructions import Program
from unitp.program.rank import intervals
from unitp.program.rows import CANDIDATES, Rows, feeds_itself, rows_of

Slices = tuple[slice, ...]


def slices(program: Program, name: str, rank: int) -> Slices:
    """The position of `rank`'s part of a value within the whole."""
    return tuple(slice(a, b) for a, b in intervals(program, name, rank))


class Parts:
    """A program's slices and parts. `key` names it in the ranks; `outputs` are names of the graph, in the program's order.

    `decided` are the rows that each rank decides on, if ranks can go on by themselves after a step of this program; else empty.
    Those of programs with guards cannot: a rank that refuses a step does not know what the others decide on.
    """

    def __init__(self, key: str, number: int, program: Program, outputs: Sequence[str]) -> None:
        self.key, self.number, self.program = key, number, program
        self.outputs = dict(zip(outputs, program.outputs, strict=True))
        ranks = range(program.mesh.size)
        groups: dict[tuple[tuple[tuple[int, int], ...], ...], list[int]] = {}
        for rank in ranks:
            groups.setdefault(tuple(intervals(program, name, rank) for name in program.inputs), []).append(rank)
        self.groups = [(tuple(members), self._cuts(members[0])) for members in groups.values()]
        self.holders = {name: _holders(program, name) for name in program.outputs}
        alone = tuple(outputs) == CANDIDATES and feeds_itself(program) and not guards(program)
        self.decided: tuple[Rows, ...] = tuple(rows_of(program, rank) for rank in ranks) if alone else ()
        self.wanted = [tuple(n for n in program.outputs if rank in self.holders[n]) for rank in ranks]

    def _cuts(self, rank: int) -> dict[str, Slices]:
        return {name: slices(self.program, name, rank) for name in self.program.inputs}

    def join(self, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Whole outputs by the graph's names, from the parts that each rank sent."""
        return {name: self._paste(value, parts) for name, value in self.outputs.items()}

    def _paste(self, name: str, parts: Sequence[Mapping[str, Array]]) -> Array:
        value = self.program.values[name]
        whole: Array = np.empty(value.shape, value.dtype)
        for rank in reversed(self.holders[name]):  # where parts overlap, the first holder wins
            whole[slices(self.program, name, rank)] = parts[rank][name]
        return whole


def _holders(program: Program, name: str) -> list[int]:
    """The ranks that send their parts: the first of those with the same part, without those that hold nothing."""
    seen: dict[tuple[tuple[int, int], ...], int] = {}
    for rank in range(program.mesh.size):
        held = intervals(program, name, rank)
        if all(b > a for a, b in held):
            seen.setdefault(held, rank)
    return list(seen.values())
