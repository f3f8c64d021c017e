"""Whether the ranks that hold the same part of a value hold the same bits, and a program in which they do.

Ranks that decide for themselves (`unitp.ranks.decoding`) have to decide alike. Ranks that repeat a computation may differ
in the last bit: sums depend on the order of their terms, and that on the kernel and where its operands lie. With
same(v) the axes along which ranks that hold the same part of v hold the same bits,

    same(input or parameter) = all axes        same(state) = none
    same(operator) = the common ones of its operands where it only moves, compares or looks up; else none
    same(all_gather over a) = same(operand) + a        same(slice or all_to_all) = same(operand)        same(the others) = none

`alike` broadcasts each output along the other axes: the first coordinate keeps its part, the others hold zeros, and the
sum is the part. Nothing else in a program changes.
"""

from __future__ import annotations

import msgspec

from unitp.graph.ops import operator
from unitp.layout import Layout
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Instruction,
    Local,
    Mask,
    Program,
    Slice,
    reads,
    writes,
)

EXACT = ("data movement", "look-up", "selection")
"""Kinds of operators that make no new numbers, so that equal operands give equal results wherever they lie."""


def unlike(program: Program) -> dict[str, tuple[str, ...]]:
    """The outputs of which ranks with the same part may hold other bits, each with the axes along which they may."""
    axes = frozenset(axis for axis, size in program.mesh.axes if size > 1)
    same = dict.fromkeys((*program.inputs, *program.parameters), axes)
    same |= dict.fromkeys((old for old, _ in program.states), frozenset())
    for instruction in program.instructions:
        same |= dict.fromkeys(writes(instruction), _same(instruction, same, axes))
    found = {}
    for name in program.outputs:
        differs = axes - same[name] - set(program.values[name].layout.axes)
        if differs:
            found[name] = tuple(axis for axis, _ in program.mesh.axes if axis in differs)
    return found


def _same(instruction: Instruction, same: dict[str, frozenset[str]], axes: frozenset[str]) -> frozenset[str]:
    """The axes along which what an instruction makes has the same bits."""
    common = axes.intersection(*(same[name] for name in reads(instruction)))
    match instruction:
        case Local(op=op):
            return common if operator(op).kind in EXACT else frozenset()
        case AllGather(axis=axis):
            return common | {axis}
        case Slice() | AllToAll():
            return common
        case _:
            return frozenset()


def alike(program: Program) -> Program:
    """The program, with its outputs broadcast where ranks that hold the same part of one may hold other bits."""
    values, instructions, outputs = dict(program.values), list(program.instructions), []
    found = unlike(program)
    for name in program.outputs:
        made = name
        for axis in found.get(name, ()):
            value = values[made]
            masked, summed = f"{name}:first of {axis}", f"{name}:as the first of {axis}"
            values[masked] = msgspec.structs.replace(value, layout=Layout(value.layout.dims, (axis,)))
            values[summed] = value
            instructions += [Mask(made, masked, axis), AllReduce(masked, summed, axis)]
            made = summed
        outputs.append(made)
    if not found:
        return program
    return msgspec.structs.replace(program, values=values, instructions=tuple(instructions), outputs=tuple(outputs))
