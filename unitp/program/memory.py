"""The bytes that a rank needs, by liveness: those it holds between calls, and the most alive at once during a call.

Between calls a rank holds parameters, states, and copies (slices, gathers, not views) made of parameters alone that a
call reads. Other values live from the instruction that makes them to the last that reads them. Among these, a view counts
as a copy, because some frameworks copy. The workspace of an instruction (attention's scores, what a collective sends)
counts while it runs. A state that is updated in place counts once; any other new state exists in addition to the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.graph.ops import operator
from unitp.graph.values import item_bytes
from unitp.layout import Layout, Split
from unitp.program.analysis import constants, dead_after, in_place, is_view, per_call
from unitp.program.instructions import AllGather, Collective, Instruction, Local, Program, Value, reads, writes
from unitp.program.rank import local_shape

Row = npt.NDArray[np.int64]
"""One number for each rank."""


class Memory(msgspec.Struct, frozen=True):
    """Bytes that one rank needs: parameters (with copies made of them), states, and the most activations alive at once.

    `at` is the number of the instruction at which most is alive, in the program of `phase`; -1 if there is none.
    """

    parameters: int
    states: int
    activations: int
    at: int = -1
    phase: str = ""

    @property
    def peak(self) -> int:
        return self.parameters + self.states + self.activations


def peak(program: Program, rank: int) -> Memory:
    """Return the bytes that `rank` needs to run `program`."""
    return _together([program], [rank])[0]


def peaks(programs: Sequence[Program]) -> list[Memory]:
    """Return the bytes that each rank needs to run these programs of one plan in turn. What one program holds stays for all."""
    return _together(programs, range(programs[0].mesh.size))


def _together(programs: Sequence[Program], ranks: Sequence[int]) -> list[Memory]:
    sizes = [Sizes(program, ranks) for program in programs]
    parameters = states = np.zeros(len(ranks), np.int64)
    copies: dict[tuple[str, Layout], Row] = {}
    for own in sizes:
        for key, row in _stored(own).items():
            copies[key] = np.maximum(row, copies.get(key, 0))
        states = np.maximum(states, own.total(old for old, _ in own.program.states))
    for row in copies.values():
        parameters = parameters + row
    found = [_activations(own) for own in sizes]
    most = [max(range(len(found)), key=lambda n: int(found[n][0][r])) for r in range(len(ranks))]
    return [
        Memory(int(parameters[r]), int(states[r]), int(found[n][0][r]), int(found[n][1][r]), programs[n].phase)
        for r, n in enumerate(most)
    ]


def _activations(sizes: Sizes) -> tuple[Row, Row]:
    """Return by rank the most bytes alive at once in addition to those held between calls, and the instruction at which they are alive."""
    program = sizes.program
    kept = {*constants(program), *(old for old, _ in program.states), *in_place(program)}
    dead = dead_after(program, kept)
    live = sizes.total(program.inputs)
    most, at = live, np.full(len(live), -1)
    for number, instruction in per_call(program):
        live = live + sizes.total(name for name in writes(instruction) if name not in kept)
        now = live + _workspace(sizes, instruction)
        at = np.where(now > most, number, at)
        most = np.maximum(most, now)
        live = live - sizes.total(dead[number])
    return most, at


def held(program: Program, rank: int) -> tuple[int, int]:
    """Return the bytes that `rank` holds between calls: parameters with the copies made of them, and states."""
    sizes = Sizes(program, [rank])
    states = sizes.total(old for old, _ in program.states)
    return sum(int(row[0]) for row in _stored(sizes).values()), int(states[0])


def _stored(sizes: Sizes) -> dict[tuple[str, Layout], Row]:
    """Return the parameters and the copies of them that are held between calls, by origin and layout."""
    program = sizes.program
    fixed = constants(program).keys()
    made = {name: i for i in program.instructions for name in writes(i) if name in fixed}
    wanted = {name for _, instruction in per_call(program) for name in reads(instruction)}
    wanted |= {*program.outputs, *(new for _, new in program.states)}
    stored = set(program.parameters)
    for name in wanted & fixed:
        while (instruction := made.get(name)) is not None and is_view(instruction):
            name = reads(instruction)[0]
        stored.add(name)
    return {(name.partition("@")[0], program.values[name].layout): sizes[name] for name in stored}


class Sizes:
    """The bytes of the parts of a program's values: for each value an int64 array with one number per rank."""

    def __init__(self, program: Program, ranks: Sequence[int]) -> None:
        self.program, self.ranks = program, ranks
        self._rows: dict[Value, Row] = {}
        self._lengths: dict[Split, Row] = {}

    def __getitem__(self, name: str) -> Row:
        value = self.program.values[name]
        if value not in self._rows:
            row: Row = np.full(len(self.ranks), item_bytes(value.dtype), np.int64)
            for size in self.shape(name):
                row = row * size
            self._rows[value] = row
        return self._rows[value]

    def shape(self, name: str) -> list[Row | int]:
        """Return the local shape of a value: an array with one number per rank for each dim that is split, a number for the others."""
        value = self.program.values[name]
        return [self._length(s) if s else n for s, n in zip(value.layout.dims, value.shape, strict=True)]

    def _length(self, split: Split) -> Row:
        if (found := self._lengths.get(split)) is None:
            parts = (split.at(rank, self.program.mesh) for rank in self.ranks)
            found = self._lengths[split] = np.array([b - a for a, b in parts], np.int64)
        return found

    def total(self, names: Iterable[str]) -> Row:
        """Return the sum over values. Without values it is 0."""
        total = np.zeros(len(self.ranks), np.int64)
        for name in names:
            total = total + self[name]
        return total


def local_bytes(program: Program, name: str, rank: int) -> int:
    """Return the bytes of a rank's part of a value."""
    return prod(local_shape(program, name, rank)) * item_bytes(program.values[name].dtype)


def _workspace(sizes: Sizes, instruction: Instruction) -> Row | int:
    """Return the bytes that an instruction needs in addition to its inputs and outputs."""
    if isinstance(instruction, Collective):
        # what is sent, padded, or what arrives, before it is joined
        return sizes[instruction.output if isinstance(instruction, AllGather) else instruction.input]
    if not isinstance(instruction, Local) or (scratch := operator(instruction.op).scratch) is None:
        return 0
    item = item_bytes(sizes.program.values[instruction.inputs[0]].dtype)
    shapes = [sizes.shape(name) if name else [] for name in instruction.inputs]
    rows = [[np.broadcast_to(n, len(sizes.ranks)) for n in shape] for shape in shapes]
    found = [scratch([[int(n[r]) for n in shape] for shape in rows], item) for r in range(len(sizes.ranks))]
    return np.array(found, np.int64)
