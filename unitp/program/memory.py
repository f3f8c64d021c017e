"""Bytes that a rank needs, by liveness: what it holds between calls, and the most that is alive at once during one.

Held are parameters, states, and what follows from parameters alone where a call reads it and it is a copy (a slice, a
gather), not a view. Other values live from the instruction that makes them to the last that reads them; views count as
copies there, since some frameworks make them so. An instruction's own working space (attention's scores, what a
collective sends) counts while it runs. A state written by TensorScatter is updated in place; any other new state lives
beside the old.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

import msgspec
import numpy as np

from unitp.program.decompositions.attention import blocks
from unitp.program.instructions import AllGather, Collective, Instruction, Local, Program, reads, writes
from unitp.program.rank import local_shape

VIEWS = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")


class Memory(msgspec.Struct, frozen=True):
    """Bytes: parameters (and copies made of them), states, the most activations alive at once, and the sum.

    `at` is the number of the instruction at which most is alive; -1 where none is.
    """

    parameters: int
    states: int
    activations: int
    at: int = -1

    @property
    def peak(self) -> int:
        return self.parameters + self.states + self.activations


def peak(program: Program, rank: int) -> Memory:
    """What `rank` needs to run `program`."""
    parameters, states = held(program, rank)
    size = {name: local_bytes(program, name, rank) for name in program.values}
    kept = constants(program) | {old for old, _ in program.states} | _in_place(program)
    last = _last_reads(program)
    live = most = sum(size[name] for name in program.inputs)
    at = -1
    for number, instruction in per_call(program):
        live += sum(size[name] for name in writes(instruction) if name not in kept)
        now = live + _workspace(program, instruction, rank)
        most, at = (now, number) if now > most else (most, at)
        done = (n for n in {*reads(instruction), *writes(instruction)} if last.get(n) == number and n not in kept)
        live -= sum(size[name] for name in done)
    return Memory(parameters, states, most, at)


def held(program: Program, rank: int) -> tuple[int, int]:
    """Bytes that `rank` holds between calls: parameters with the copies made of them, and states."""
    fixed = constants(program)
    made = {name: i for i in program.instructions for name in writes(i) if name in fixed}
    wanted = {name for _, instruction in per_call(program) for name in reads(instruction)}
    wanted |= {*program.outputs, *(new for _, new in program.states)}
    stored = set(program.parameters)
    for name in wanted & fixed:
        while isinstance(instruction := made.get(name), Local) and instruction.op in VIEWS:
            name = instruction.inputs[0]
        stored.add(name)
    parameters = sum(local_bytes(program, name, rank) for name in stored)
    return parameters, sum(local_bytes(program, old, rank) for old, _ in program.states)


def local_bytes(program: Program, name: str, rank: int) -> int:
    """Bytes of a rank's part of a value."""
    return prod(local_shape(program, name, rank)) * np.dtype(program.values[name].dtype).itemsize


def constants(program: Program) -> set[str]:
    """The values that depend on parameters alone; what makes them runs once, at load."""
    found = set(program.parameters)
    for instruction in program.instructions:
        names = reads(instruction)
        if names and found.issuperset(names):
            found |= set(writes(instruction))
    return found


def per_call(program: Program) -> Iterator[tuple[int, Instruction]]:
    """The instructions that every call runs, with their numbers."""
    fixed = constants(program)
    return ((n, i) for n, i in enumerate(program.instructions) if not fixed.issuperset(writes(i)))


def _in_place(program: Program) -> set[str]:
    """The new states that a TensorScatter writes into the old, which nobody else reads."""
    readers = Counter(name for instruction in program.instructions for name in reads(instruction))
    states = dict(program.states)
    return {
        i.outputs[0]
        for i in program.instructions
        if isinstance(i, Local)
        and i.op == "TensorScatter"
        and states.get(i.inputs[0]) == i.outputs[0]
        and readers[i.inputs[0]] == 1
        and i.inputs[0] not in program.outputs
    }


def _last_reads(program: Program) -> dict[str, int]:
    """The number of the last instruction that touches a value; outputs and new states are kept to the end."""
    last: dict[str, int] = {}
    for number, instruction in enumerate(program.instructions):
        last |= dict.fromkeys((*reads(instruction), *writes(instruction)), number)
    ends = {*program.outputs, *(new for _, new in program.states)}
    return {name: number for name, number in last.items() if name not in ends}


def _workspace(program: Program, instruction: Instruction, rank: int) -> int:
    """Bytes that an instruction needs beside its inputs and outputs."""
    if isinstance(instruction, Collective):
        # what is sent, padded, or what arrives, before it is joined
        whole = instruction.output if isinstance(instruction, AllGather) else instruction.input
        return local_bytes(program, whole, rank)
    if isinstance(instruction, Local) and instruction.op == "Attention":
        # scores of a block of queries, and a copy of them where a framework masks and exponentiates out of place
        b, h, s, _ = local_shape(program, instruction.inputs[0], rank)
        t = local_shape(program, instruction.inputs[1], rank)[2]
        row = b * h * t * np.dtype(program.values[instruction.inputs[0]].dtype).itemsize
        return 2 * row * max(stop - start for start, stop in blocks(s, row))
    return 0
