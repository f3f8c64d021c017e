"""Facts that follow from a program: which values are constant, what every call runs, how long values live, and
which states are updated in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from typing import TypeVar

from unitp.graph.ops import operator
from unitp.program.instructions import Instruction, Local, Program, reads, writes

V = TypeVar("V", bound=Hashable)


def constants(program: Program) -> dict[str, tuple[str, ...]]:
    """Return the values that depend on parameters alone, parameters among them, each with those parameters.

    The instructions that make the others run once, at load.
    """
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in program.parameters}
    for instruction in program.instructions:
        names = reads(instruction)
        if names and all(name in found for name in names):
            roots = found[names[0]] if len(names) == 1 else tuple(dict.fromkeys(r for n in names for r in found[n]))
            found |= dict.fromkeys(writes(instruction), roots)
    return found


def per_call(program: Program) -> Iterator[tuple[int, Instruction]]:
    """Yield the instructions that every call runs, with their numbers."""
    fixed = constants(program)
    return ((n, i) for n, i in enumerate(program.instructions) if not fixed.keys() >= set(writes(i)))


def last_uses(used: Sequence[Iterable[V]], kept: Set[V]) -> list[list[V]]:
    """Return for each step the values that it uses and no later step does, in its own order, without `kept` values."""
    seen, last = set(kept), []
    for values in reversed(used):
        last.append([value for value in dict.fromkeys(values) if value not in seen])
        seen.update(last[-1])
    return last[::-1]


def dead_after(program: Program, kept: Set[str]) -> list[list[str]]:
    """Return for each instruction the values that nothing needs after it. Outputs, new states and `kept` values are always needed."""
    ends = {*program.outputs, *(new for _, new in program.states), *kept}
    return last_uses([(*reads(i), *writes(i)) for i in program.instructions], ends)


def in_place(program: Program) -> set[str]:
    """Return the new states that may overwrite the old ones, because nothing else reads these."""
    readers = Counter(name for instruction in program.instructions for name in reads(instruction))
    states = dict(program.states)

    def replaces(local: Local) -> bool:
        written = operator(local.op).written
        old = "" if written is None else local.inputs[written]
        return states.get(old) == local.outputs[0] and readers[old] == 1 and old not in program.outputs

    return {i.outputs[0] for i in program.instructions if isinstance(i, Local) and replaces(i)}


def is_view(instruction: Instruction) -> bool:
    """Say whether the result of an instruction always shares the memory of its input."""
    return isinstance(instruction, Local) and operator(instruction.op).view == "always"


def may_share(instruction: Instruction) -> bool:
    """Say whether the result of an instruction may share the memory of its inputs."""
    return not isinstance(instruction, Local) or operator(instruction.op).view != "never"
