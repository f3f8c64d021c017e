"""Programs as text: one line per instruction, for all ranks with layouts, or for one rank with local shapes.

    12  %matmul_3: f32[1, 1, 576 tp[0:320 320:576]] = MatMul(%rms_1, %transpose_2)    n over tp
    13  %add@1: f32[1, 1, 576] = all_reduce(%add) sum over tp

On rank 1, where `256 @320` means 256 rows from row 320 on:

    12  %matmul_3: f32[1, 1, 256 @320] = MatMul(%rms_1, %transpose_2)    n 320:576
    13  %add@1: f32[1, 1, 576] = all_reduce(%add) sum over tp    ranks 0 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unitp.graph.values import Attribute
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Instruction,
    Local,
    Mask,
    Program,
    ReduceScatter,
    Slice,
)
from unitp.program.memory import peak
from unitp.program.rank import intervals, local_shape

SHORT = {
    "float32": "f32",
    "float64": "f64",
    "bfloat16": "bf16",
    "float16": "f16",
    "int64": "i64",
    "int32": "i32",
    "bool": "bool",
}


def line(instruction: Instruction, described: Callable[[str], str] = lambda name: f"%{name}") -> str:
    """Return an instruction as one line. `described` formats what it makes; without it only the name is given, as in errors."""
    if isinstance(instruction, Local):
        attrs = "".join(f", {key}={_short(value)}" for key, value in instruction.attrs.items())
        inputs = ", ".join(f"%{name}" if name else "-" for name in instruction.inputs)
        return f"{', '.join(map(described, instruction.outputs))} = {instruction.op}({inputs}{attrs})"
    return f"{described(instruction.output)} = {_conversion(instruction)}"


def _conversion(instruction: Collective | Slice | Mask) -> str:
    source = f"(%{instruction.input})"
    match instruction:
        case AllReduce():
            return f"all_reduce{source} {instruction.reduction} over {instruction.axis}"
        case AllGather():
            return f"all_gather{source} dim {instruction.dim} over {instruction.axis}"
        case ReduceScatter():
            return f"reduce_scatter{source} dim {instruction.dim} over {instruction.axis}"
        case AllToAll():
            return f"all_to_all{source} dim {instruction.source} to {instruction.dim} over {instruction.axis}"
        case Slice():
            return f"slice{source} dim {instruction.dim}"
        case Mask():
            return f"mask{source} first of {instruction.axis}"


def _short(value: Attribute) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def at(program: Program, number: int) -> str:
    """Return the place of an instruction in a program, as errors and the watchdog name it: `instruction 12, %x = ...`."""
    if not 0 <= number < len(program.instructions):
        return f"no instruction ({number} of {len(program.instructions)})"
    return f"instruction {number}, {line(program.instructions[number])}"


def program_text(program: Program) -> Iterator[str]:
    """Yield the lines of a program for all ranks: its inputs, every instruction with the layout of its output, and its outputs."""

    def described(name: str) -> str:
        value = program.values[name]
        dims = (f"{n} {s}" if s else str(n) for n, s in zip(value.shape, value.layout.dims, strict=True))
        return f"%{name}: {SHORT[value.dtype]}[{', '.join(dims)}]{value.layout.terms}"

    yield _header(program)
    yield from _given(program, described)
    for number, instruction in enumerate(program.instructions):
        splits = getattr(instruction, "splits", {})
        notes = ", ".join(f"{factor} over {split.over}" for factor, split in splits.items())
        yield _numbered(number, line(instruction, described), notes)
    yield _returned(program)


def rank_text(program: Program, rank: int) -> Iterator[str]:
    """Yield the lines of a program for one rank, with local shapes and offsets, parts of factors, and the ranks of collectives."""
    mesh = program.mesh

    def described(name: str) -> str:
        held = zip(
            intervals(program, name, rank), local_shape(program, name, rank), program.values[name].shape, strict=True
        )
        dims = (f"{n} @{a}" if n != whole else str(n) for (a, _), n, whole in held)
        return f"%{name}: {SHORT[program.values[name].dtype]}[{', '.join(dims)}]{program.values[name].layout.terms}"

    yield _header(program)
    memory = peak(program, rank)
    coords = ", ".join(f"{axis}={mesh.coords(rank)[axis]}" for axis, _ in mesh.axes)
    yield (
        f"rank {rank}{f' ({coords})' if coords else ''}, needs {memory.peak / 1e6:.1f} MB: parameters "
        f"{memory.parameters / 1e6:.1f}, states {memory.states / 1e6:.1f}, activations {memory.activations / 1e6:.1f}"
    )
    yield from _given(program, described)
    for number, instruction in enumerate(program.instructions):
        if isinstance(instruction, Collective):
            notes = f"ranks {' '.join(map(str, mesh.group_of(rank, instruction.axis)))}"
        else:
            own = {factor: split.at(rank, mesh) for factor, split in getattr(instruction, "splits", {}).items()}
            notes = ", ".join(f"{factor} {a}:{b}" for factor, (a, b) in own.items())
        yield _numbered(number, line(instruction, described), notes)
    yield _returned(program)


def _header(program: Program) -> str:
    sizes = ", ".join(f"{symbol}={size}" for symbol, size in program.sizes.items())
    return (
        f"program of graph {program.graph}, phase {program.phase}, mesh {program.mesh}{f', {sizes}' if sizes else ''}"
    )


def _given(program: Program, described: Callable[[str], str]) -> Iterator[str]:
    """Yield the lines for the values that come from outside, indented like the numbered lines."""
    states = dict(program.states)
    for what, names in (("input", program.inputs), ("parameter", program.parameters), ("state", tuple(states))):
        for name in names:
            yield f"       {what} {described(name)}{f', becomes %{states[name]}' if what == 'state' else ''}"


def _numbered(number: int, text: str, notes: str) -> str:
    return f"{number:5}  {text}{f'    {notes}' if notes else ''}"


def _returned(program: Program) -> str:
    return f"       return {', '.join(f'%{name}' for name in program.outputs)}"
