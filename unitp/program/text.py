"""Programs as text: one line per instruction, for all ranks with layouts, or for one rank with local shapes.

12  %matmul_3: f32[1, 1, 576 tp[0:320 320:576]] = MatMul(%rms_1, %transpose_2)    n over tp
13  %add@1: f32[1, 1, 576] = all_reduce(%add) sum over tp
"""

from __future__ import annotations

from collections.abc import Iterator

from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Instruction,
    Local,
    Mask,
    Program,
    ReduceScatter,
    Slice,
    writes,
)
from unitp.program.rank import intervals, local_shape

SHORT = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "bool": "bool"}


def line(instruction: Instruction) -> str:
    """What an instruction does, without types: as errors name it."""
    match instruction:
        case Local():
            attrs = "".join(f", {key}={value}" for key, value in instruction.attrs.items())
            inputs = ", ".join(f"%{name}" if name else "-" for name in instruction.inputs)
            outputs = ", ".join(f"%{name}" for name in instruction.outputs)
            return f"{outputs} = {instruction.op}({inputs}{attrs})"
        case AllReduce():
            return f"%{instruction.output} = all_reduce(%{instruction.input}) {instruction.reduction} over {instruction.axis}"
        case AllGather() | ReduceScatter():
            kind = "all_gather" if isinstance(instruction, AllGather) else "reduce_scatter"
            return f"%{instruction.output} = {kind}(%{instruction.input}) dim {instruction.dim} over {instruction.axis}"
        case AllToAll():
            dims = f"dim {instruction.source} to {instruction.dim}"
            return f"%{instruction.output} = all_to_all(%{instruction.input}) {dims} over {instruction.axis}"
        case Slice():
            return f"%{instruction.output} = slice(%{instruction.input}) dim {instruction.dim}"
        case Mask():
            return f"%{instruction.output} = mask(%{instruction.input}) first of {instruction.axis}"


def at(program: Program, number: int) -> str:
    """`instruction 12, %x = ...`: how errors and the watchdog name a place in a program."""
    if not 0 <= number < len(program.instructions):
        return f"no instruction ({number} of {len(program.instructions)})"
    return f"instruction {number}, {line(program.instructions[number])}"


def program_text(program: Program) -> Iterator[str]:
    """The lines of a program: a header, then every instruction with the layouts of what it makes."""
    yield from _header(program)
    for number, instruction in enumerate(program.instructions):
        made = "; ".join(_global(program, name) for name in writes(instruction))
        splits = ", ".join(f"{f} over {'*'.join(s.axes)}" for f, s in getattr(instruction, "splits", {}).items())
        yield f"{number:5}  {line(instruction)}    {made}{f'    ({splits})' if splits else ''}"
    yield f"       return {', '.join(f'%{name}' for name in program.outputs)}"


def rank_text(program: Program, rank: int) -> Iterator[str]:
    """The lines of one rank: local shapes, the intervals it holds of what is split, and what it computes of each factor."""
    yield from _header(program)
    coords = ", ".join(f"{axis}={at}" for axis, at in program.mesh.coords(rank).items())
    yield f"rank {rank}{f' ({coords})' if coords else ''}"
    for number, instruction in enumerate(program.instructions):
        made = "; ".join(_local(program, name, rank) for name in writes(instruction))
        own = {f: s.at(rank, program.mesh) for f, s in getattr(instruction, "splits", {}).items()}
        facts = ", ".join(f"{f}={a}:{b}" for f, (a, b) in own.items())
        yield f"{number:5}  {line(instruction)}    {made}{f'    ({facts})' if facts else ''}"
    yield f"       return {', '.join(f'%{name}' for name in program.outputs)}"


def _header(program: Program) -> Iterator[str]:
    sizes = ", ".join(f"{symbol}={size}" for symbol, size in program.sizes.items())
    yield f"program of graph {program.graph}, phase {program.phase}, mesh {program.mesh}{f', {sizes}' if sizes else ''}"


def _global(program: Program, name: str) -> str:
    value = program.values[name]
    dims = (f"{n} {s}" if s else str(n) for n, s in zip(value.shape, value.layout.dims, strict=True))
    partial = f" partial {value.layout.reduction} over {','.join(value.layout.partial)}" if value.layout.partial else ""
    return f"{SHORT[value.dtype]}[{', '.join(dims)}]{partial}"


def _local(program: Program, name: str, rank: int) -> str:
    value = program.values[name]
    held = intervals(program, name, rank)
    part = "".join(f" dim {d}: {a}:{b}" for d, (a, b) in enumerate(held) if (a, b) != (0, value.shape[d]))
    partial = f" partial over {','.join(value.layout.partial)}" if value.layout.partial else ""
    return f"{SHORT[value.dtype]}{list(local_shape(program, name, rank))}{part}{partial}"
