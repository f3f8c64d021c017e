"""Bytes that a rank needs, by liveness: what it holds, and the most that is alive at once beside it.

Parameters and states live throughout. What follows from parameters alone is kept too where it is a copy (a slice, a gather), not
where it is a view. Other values live from the instruction that makes them to the last that reads them; an operator's own
working space (attention's scores, the buffer of a gather) counts while it runs.
"""

from __future__ import annotations

from math import prod

import msgspec
import numpy as np

from unitp.program.instructions import AllGather, Instruction, Local, Program, reads, writes
from unitp.program.rank import local_shape

VIEWS = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")


class Memory(msgspec.Struct, frozen=True):
    """Bytes: parameters (and copies made of them), states, the most activations alive at once, and the sum."""

    parameters: int
    states: int
    activations: int

    @property
    def peak(self) -> int:
        return self.parameters + self.states + self.activations


def peak(program: Program, rank: int) -> Memory:
    """What `rank` needs to run `program`."""
    size = {name: _bytes(program, name, rank) for name in program.values}
    constant = set(program.parameters)
    held = sum(size[name] for name in constant)
    states = sum(size[old] for old, _ in program.states)
    in_place = {new for _, new in program.states} | {old for old, _ in program.states}
    last = _last_reads(program)
    live = most = sum(size[name] for name in program.inputs)
    for number, instruction in enumerate(program.instructions):
        made = writes(instruction)
        if all(name in constant for name in reads(instruction)):
            constant |= set(made)
            if not (isinstance(instruction, Local) and instruction.op in VIEWS):
                held += sum(size[name] for name in made)
            continue
        live += sum(size[name] for name in made if name not in in_place)
        most = max(most, live + _workspace(program, instruction, rank))
        for name in dict.fromkeys((*reads(instruction), *made)):
            if last.get(name) == number and name not in constant and name not in in_place:
                live -= size[name]
    return Memory(held, states, most)


def _bytes(program: Program, name: str, rank: int) -> int:
    return prod(local_shape(program, name, rank)) * np.dtype(program.values[name].dtype).itemsize


def _last_reads(program: Program) -> dict[str, int]:
    """The number of the last instruction that touches a value; outputs are touched by nobody's last."""
    last: dict[str, int] = {}
    for number, instruction in enumerate(program.instructions):
        last |= dict.fromkeys((*reads(instruction), *writes(instruction)), number)
    return {name: number for name, number in last.items() if name not in program.outputs}


def _workspace(program: Program, instruction: Instruction, rank: int) -> int:
    if isinstance(instruction, AllGather):
        return _bytes(program, instruction.output, rank)
    if isinstance(instruction, Local) and instruction.op == "Attention":
        b, h, s, _ = local_shape(program, instruction.inputs[0], rank)
        t = local_shape(program, instruction.inputs[1], rank)[2]
        return 2 * b * h * s * t * np.dtype(program.values[instruction.inputs[0]].dtype).itemsize
    return 0
