"""Checks whether a program is well formed: types of fields, names, dtypes, axes, dims, splits.

These checks come before anything is derived from a program. They check what a worker would decode, so a field of a wrong
type is found here, and not by a crash later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from unitp.errors import ProgramError
from unitp.graph.ops import operator
from unitp.graph.values import DTYPES, STORED
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.program.instructions import (
    SCHEMA,
    AllReduce,
    Instruction,
    Local,
    Program,
    Value,
    decode,
    encode,
    reads,
    writes,
)
from unitp.program.text import at


def decoded(program: Program) -> Program:
    """Return the program as a worker decodes it. Raises ProgramError that names a field of a wrong type."""
    if program.schema != SCHEMA:
        raise ProgramError(f"program schema {program.schema}, this unitp reads {SCHEMA}")
    try:
        return decode(encode(program))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise ProgramError(f"{_malformed(program)}: {error}") from None


def _malformed(program: Program) -> str:
    """Return the instruction or value that cannot be encoded and decoded."""
    parts: list[tuple[str, Any, Any]] = [
        (f"instruction {number}, {instruction!r}", instruction, Instruction)
        for number, instruction in enumerate(program.instructions)
    ]
    parts += [(f'value "{name}"', value, Value) for name, value in program.values.items()]
    for what, part, wanted in parts:
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=wanted)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            return what
    return "program"


class Fields:
    """One pass over a program. `defined` has the values defined so far."""

    def __init__(self, program: Program) -> None:
        self.program, self.mesh = program, program.mesh
        self.defined: set[str] = set()

    def begin(self) -> None:
        """Check mesh and values, and define the values that come from outside.

        Raises ProgramError that names the first value whose shape, dtype or layout is impossible.
        """
        _check_mesh(self.mesh)
        legal: set[tuple[tuple[int, ...], Layout]] = set()
        for name, value in self.program.values.items():
            if (value.shape, value.layout) not in legal or value.layout.partial:
                if problem := "; ".join(_value_problems(value, self.mesh)):
                    raise ProgramError(f'value "{name}"{self.maker(name)} {problem}')
                legal.add((value.shape, value.layout))
        for name in (*self.program.inputs, *self.program.parameters, *(old for old, _ in self.program.states)):
            self.given(name)

    def given(self, name: str) -> None:
        """Define a value that comes from outside.

        Raises ProgramError if the program does not list it, if it comes twice, or if it is a partial sum.
        """
        if name not in self.program.values:
            raise ProgramError(f'"{name}" comes from outside, but is not a value of the program')
        if name in self.defined:
            raise ProgramError(f'"{name}" comes from outside twice')
        if self.program.values[name].layout.partial:
            raise ProgramError(f'"{name}" comes from outside as a partial sum')
        self.defined.add(name)

    def end(self) -> None:
        """Check outputs and new states, and that every value has been defined.

        Raises ProgramError for an output or state that is not defined or cannot be given away, and for a value without origin.
        """
        for name in self.program.outputs:
            if name not in self.defined:
                raise ProgramError(f'output "{name}" is not defined')
            if self.program.values[name].layout.partial:
                raise ProgramError(f'output "{name}"{self.maker(name)} is a partial sum')
        for old, new in self.program.states:
            if new not in self.defined:
                raise ProgramError(f'state "{new}" is not defined')
            if self.program.values[old] != self.program.values[new]:
                raise ProgramError(
                    f'state "{old}" is replaced by "{new}"{self.maker(new)} which has another type or layout'
                )
        if never := [name for name in self.program.values if name not in self.defined]:
            raise ProgramError(f'value "{never[0]}" is never defined')

    def maker(self, name: str) -> str:
        """Return the origin of a value for messages: its instruction, or, if it comes from outside, its first reader."""
        for uses, where in ((writes, "of"), (reads, "read by")):
            for number, instruction in enumerate(self.program.instructions):
                if name in uses(instruction):
                    return f", {where} {at(self.program, number)}:"
        return ""

    def problem(self, instruction: Instruction) -> str:
        """Return what is malformed about the next instruction, or an empty text. Its outputs are then defined."""
        found = next(self._problems(instruction), "")
        self.defined |= set(writes(instruction))
        return found

    def _problems(self, instruction: Instruction) -> Iterator[str]:
        for name in reads(instruction):
            if name not in self.defined:
                yield f'"{name}" is read before it is defined'
        for name in writes(instruction):
            if name not in self.program.values:
                yield f'"{name}" is not a value of the program'
            if name in self.defined or writes(instruction).count(name) > 1:
                yield f'"{name}" is defined twice'
        if isinstance(instruction, Local):
            yield from self._split_problems(instruction)
            return
        axis = getattr(instruction, "axis", None)
        if axis is not None and axis not in self.mesh.sizes:
            yield f"axis {axis} is not on the mesh ({self.mesh})"
        dims = len(self.program.values[instruction.input].shape)
        for field in ("dim", "source"):
            dim = getattr(instruction, field, None)
            if dim is not None and not 0 <= dim < dims:
                yield f"{field} {dim} of a value with {dims} dims"
        if isinstance(instruction, AllReduce) and instruction.reduction not in ("sum", "max"):
            yield f'reduction "{instruction.reduction}"'

    def _split_problems(self, local: Local) -> Iterator[str]:
        # the candidates of a part are split over the axes of the part itself
        axes = [
            axis for f, s in local.splits.items() if f != "c" or not operator(local.op).candidates for axis in s.axes
        ]
        for axis in axes:
            if axis not in self.mesh.sizes:
                yield f"axis {axis} is not on the mesh ({self.mesh})"
            if axes.count(axis) > 1:
                yield f"axis {axis} splits two factors"
        for name, split in local.splits.items():
            if split.open:
                yield f"the split of {name} is not bound"


def _check_mesh(mesh: Mesh) -> None:
    names = [name for name, _ in mesh.axes]
    if len(set(names)) < len(names) or any(size < 1 for _, size in mesh.axes):
        raise ProgramError(f"the mesh has axes {mesh.axes}: each wants a name of its own and at least one rank")


def _value_problems(value: Value, mesh: Mesh) -> Iterator[str]:
    if value.dtype not in (*DTYPES, *STORED):
        yield f'has dtype "{value.dtype}", known are {", ".join((*DTYPES, *STORED))}'
    if any(size < 0 for size in value.shape):
        yield f"has shape {value.shape}"
    if value.dtype == "bool" and value.layout.partial:
        yield "is a partial sum of bools"
    yield from value.layout.problems(value.shape, mesh)
