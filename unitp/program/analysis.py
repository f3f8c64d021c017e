"""Facts that follow from a program: which values are constant, what every call runs, which states are updated in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from unitp.graph.ops import operator
from unitp.program.instructions import Instruction, Local, Program, reads, writes


def constants(program: Program) -> set[str]:
    """The values that depend on parameters alone. The instructions that make them run once, at load."""
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


def in_place(program: Program) -> set[str]:
    """The new states that may overwrite the old ones, because nobody else reads these."""
    readers = Counter(name for instruction in program.instructions for name in reads(instruction))
    states = dict(program.states)

    def replaces(local: Local) -> bool:
        written = operator(local.op).written
        old = "" if written is None else local.inputs[written]
        return states.get(old) == local.outputs[0] and readers[old] == 1 and old not in program.outputs

    return {i.outputs[0] for i in program.instructions if isinstance(i, Local) and replaces(i)}


def is_view(instruction: Instruction) -> bool:
    """Whether the result of an instruction always shares the memory of its input."""
    return isinstance(instruction, Local) and operator(instruction.op).view == "always"


def may_share(instruction: Instruction) -> bool:
    """Whether the result of an instruction may share the memory of its inputs."""
    return not isinstance(instruction, Local) or operator(instruction.op).view != "never"
