"""A program as the driver sees it: which slice of each input goes to which rank, and which ranks' outputs make the
whole.

Ranks that hold the same slices of all inputs get the same frame, encoded once. Of ranks that hold the same part of an
output only the first sends it; the parts are pasted by their intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unitp.engine.engine import Array
from unitp.program.instructions import Program
from unitp.program.rank import intervals

Slices = tuple[slice, ...]


def slices(program: Program, name: str, rank: int) -> Slices:
    """Where `rank`'s part of a value lies in the whole."""
    return tuple(slice(a, b) for a, b in intervals(program, name, rank))


class Parts:
    """`key` names the program in the ranks; `outputs` are names of the graph, in the order of the program's outputs."""

    def __init__(self, key: str, number: int, program: Program, outputs: Sequence[str]) -> None:
        self.key, self.number, self.program = key, number, program
        self.outputs = dict(zip(outputs, program.outputs, strict=True))
        ranks = range(program.mesh.size)
        groups: dict[tuple[tuple[tuple[int, int], ...], ...], list[int]] = {}
        for rank in ranks:
            groups.setdefault(tuple(intervals(program, name, rank) for name in program.inputs), []).append(rank)
        self.groups = [(tuple(members), self._cuts(members[0])) for members in groups.values()]
        self.holders = {name: _holders(program, name) for name in program.outputs}
        self.wanted = [tuple(n for n in program.outputs if rank in self.holders[n]) for rank in ranks]

    def _cuts(self, rank: int) -> dict[str, Slices]:
        return {name: slices(self.program, name, rank) for name in self.program.inputs}

    def join(self, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Whole outputs, by the graph's names, from what each rank sent."""
        return {name: self._paste(value, parts) for name, value in self.outputs.items()}

    def _paste(self, name: str, parts: Sequence[Mapping[str, Array]]) -> Array:
        value = self.program.values[name]
        whole: Array = np.empty(value.shape, value.dtype)
        for rank in reversed(self.holders[name]):  # where parts overlap, the first holder wins
            whole[slices(self.program, name, rank)] = parts[rank][name]
        return whole


def _holders(program: Program, name: str) -> list[int]:
    """The ranks whose parts are needed: the first of those that hold the same, and none that hold nothing."""
    seen: dict[tuple[tuple[int, int], ...], int] = {}
    for rank in range(program.mesh.size):
        held = intervals(program, name, rank)
        if all(b > a for a, b in held):
            seen.setdefault(held, rank)
    return list(seen.values())
