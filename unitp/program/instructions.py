"""What each rank does: one SPMD list of local operators and explicit collectives, over values with explicit layouts.

A collective names one axis and the dim it works on. The splits before and after it are in the layouts of its input and
output, and stored nowhere else. A `Local` has the splits of its operator's factors. All that differs between ranks (a
vocabulary offset, a head map, local shapes) follows from these and the rank's coordinates (`unitp.program.rank`).

    AllReduce       partial over `axis`                          -> not partial over it
    AllGather       dim split over (..., axis)                   -> over (...): pieces joined in order, first holder wins
    ReduceScatter   partial over `axis`, dim split over (...)    -> dim split over (..., axis)
    AllToAll        `source` dim split over (axis), `dim` whole  -> `source` whole, `dim` split over (axis)
    Slice           dim split over (...) or whole                -> dim split over (..., more): local
    Mask            not partial over `axis`                      -> partial sum: coordinate 0 keeps it, the others hold zeros
"""

from __future__ import annotations

import msgspec

from unitp.graph.values import Attribute
from unitp.layout import Layout, Reduction, Split
from unitp.mesh import Mesh

SCHEMA = 1


class Value(msgspec.Struct, frozen=True, array_like=True):
    """The dtype, global shape (numbers) and bound layout of a value."""

    dtype: str
    shape: tuple[int, ...]
    layout: Layout


class Local(msgspec.Struct, frozen=True, tag="local"):
    """An ONNX operator on local parts. Absent inputs are "". `splits` maps a factor to its bound split."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Attribute] = {}
    splits: dict[str, Split] = {}


class AllReduce(msgspec.Struct, frozen=True, tag="all_reduce"):
    input: str
    output: str
    axis: str
    reduction: Reduction = "sum"


class AllGather(msgspec.Struct, frozen=True, tag="all_gather"):
    input: str
    output: str
    axis: str
    dim: int


class ReduceScatter(msgspec.Struct, frozen=True, tag="reduce_scatter"):
    input: str
    output: str
    axis: str
    dim: int


class AllToAll(msgspec.Struct, frozen=True, tag="all_to_all"):
    input: str
    output: str
    axis: str
    source: int
    dim: int


class Slice(msgspec.Struct, frozen=True, tag="slice"):
    input: str
    output: str
    dim: int


class Mask(msgspec.Struct, frozen=True, tag="mask"):
    input: str
    output: str
    axis: str


Collective = AllReduce | AllGather | ReduceScatter | AllToAll
Instruction = Local | AllReduce | AllGather | ReduceScatter | AllToAll | Slice | Mask


def kind_of(instruction: Instruction) -> str:
    """Return the name of an instruction's kind, as programs are written: `all_reduce`, `slice`, `local`."""
    return str(type(instruction).__struct_config__.tag)


class Program(msgspec.Struct, frozen=True):
    """The instructions for all ranks. Inputs and outputs are local parts in their layouts; states are updated in place.

    `states` pairs the value read with the value that replaces it (same shape, dtype and layout). Instructions whose inputs
    depend on parameters alone run once, when parameters are loaded.
    """

    graph: str
    mesh: Mesh
    phase: str
    sizes: dict[str, int]
    values: dict[str, Value]
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    states: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    schema: int = SCHEMA


def reads(instruction: Instruction) -> tuple[str, ...]:
    """Return the values that an instruction reads."""
    return tuple(filter(None, instruction.inputs)) if isinstance(instruction, Local) else (instruction.input,)


def writes(instruction: Instruction) -> tuple[str, ...]:
    """Return the values that an instruction writes."""
    return instruction.outputs if isinstance(instruction, Local) else (instruction.output,)


def encode(program: Program) -> bytes:
    return msgspec.msgpack.encode(program)


def decode(data: bytes) -> Program:
    return msgspec.msgpack.decode(data, type=Program)
