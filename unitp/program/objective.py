"""The cost of a program on a machine, from its instructions alone. It shares no code with the planner's accounting.

    seconds     sum over instructions of   max over ranks r of max(flops_r / F_r, bytes_r / B_r) + overhead_r,
                or the collective's, and the fixed cost of a call of the program
    objective   sum over phases of weight * seconds
    held        mean over ranks of the bytes of parameters, copies of them and states

Instructions that depend on parameters alone run once, at load: they cost no time, but the bytes of their copies. A copy
that any phase reads is held in all phases, once. If a plan's objective differs from this one, it was priced wrongly or
lowered to something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from unitp.cost import Device, Link, Machine, collective_seconds, copy_seconds, operator_seconds, view_seconds
from unitp.cost.link import slowest
from unitp.graph.ops import flops, operator, rule_of
from unitp.graph.values import item_bytes
from unitp.program.analysis import per_call
from unitp.program.instructions import AllGather, Collective, Instruction, Local, Mask, Program, Slice, kind_of
from unitp.program.memory import local_bytes, peaks

Conversion = Collective | Slice | Mask


class Prediction(msgspec.Struct, frozen=True):
    """The seconds of one call by cause, and its number of collectives. `call_s` is the fixed cost of a call.

    `instructions` maps the number of an instruction to its seconds.
    """

    compute_s: float
    collectives_s: float
    collectives: int
    call_s: float = 0.0
    instructions: dict[int, float] = {}

    @property
    def seconds(self) -> float:
        return self.compute_s + self.collectives_s + self.call_s


def predict(program: Program, machine: Machine) -> Prediction:
    """Return the predicted cost of one call of `program`."""
    pricing = _Pricing(program, machine)
    found = [(number, isinstance(i, Collective), pricing.seconds(i)) for number, i in per_call(program)]
    return Prediction(
        compute_s=sum(seconds for _, moves, seconds in found if not moves),
        collectives_s=sum(seconds for _, moves, seconds in found if moves),
        collectives=sum(moves for _, moves, _ in found),
        call_s=machine.program_s(program.mesh),
        instructions={number: seconds for number, _, seconds in found},
    )


def predicted_seconds(program: Program, machine: Machine) -> float:
    """Return the predicted seconds of one call of `program`."""
    return predict(program, machine).seconds


def objective(programs: Sequence[tuple[float, Program]], machine: Machine) -> float:
    """Return the objective of a plan, from the programs of its phases and their weights."""
    return sum(weight * predicted_seconds(program, machine) for weight, program in programs)


def held_bytes(programs: Sequence[Program]) -> float:
    """Return the bytes that a rank holds between calls of a plan's programs, as the mean over ranks."""
    held = [memory.parameters + memory.states for memory in peaks(programs)]
    return sum(held) / len(held)


class _Pricing:
    """The costs of a program's instructions. Equal instructions are priced once."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine = program, machine
        self._memo: dict[bytes, float] = {}
        self._links: dict[str, Link] = {}

    @cached_property
    def ranks(self) -> range:
        return range(self.program.mesh.size)

    def seconds(self, instruction: Instruction) -> float:
        if not isinstance(instruction, Local):
            return self.moved(instruction)
        values = self.program.values
        types = [values.get(name) for name in (*instruction.inputs, *instruction.outputs)]
        key = msgspec.msgpack.encode((instruction.op, instruction.attrs, instruction.splits, types))
        if key not in self._memo:
            self._memo[key] = max(self.local(instruction, rank) for rank in self.ranks)
        return self._memo[key]

    def moved(self, instruction: Conversion) -> float:
        """Return the seconds of a conversion on the rank that moves most. If nothing is sent, it is a copy."""
        if not isinstance(instruction, Collective):
            made = ((rank, local_bytes(self.program, instruction.output, rank)) for rank in self.ranks)
            return max(copy_seconds(self.device(rank), size) for rank, size in made)
        whole = self.most(instruction.output if isinstance(instruction, AllGather) else instruction.input)
        size = self.program.mesh.axis_size(instruction.axis)
        link = self.link(instruction.axis)
        return collective_seconds(link, kind_of(instruction), size, whole)

    def link(self, axis: str) -> Link:
        """Return the slowest link between neighbours along an axis."""
        if axis not in self._links:
            mesh = self.program.mesh
            hops = [(a, b) for group in mesh.groups(axis) for a, b in zip(group, (*group[1:], group[0]), strict=True)]
            self._links[axis] = slowest([self.machine.between(axis, a, b) for a, b in hops])
        return self._links[axis]

    def device(self, rank: int) -> Device:
        """Return the device of a rank, at its speed while all ranks of its host work."""
        return self.machine.working(rank, self.program.mesh)

    def most(self, name: str) -> int:
        return max(local_bytes(self.program, name, rank) for rank in self.ranks)

    def local(self, local: Local, rank: int) -> float:
        """Return the seconds of a local operator on one rank."""
        known = operator(local.op)
        if known.traffic == "none":
            return view_seconds(self.device(rank), local.op)
        read = [local_bytes(self.program, name, rank) for name in local.inputs if name]
        written = sum(local_bytes(self.program, name, rank) for name in local.outputs)
        moved = {"all": sum(read) + written, "output": 2 * written, "update": 2 * min(read[:2], default=0)}[
            known.traffic
        ]
        dtype = self.program.values[next(name for name in (*local.inputs, *local.outputs) if name)].dtype
        flops = self.flops(local, rank)
        rows = 0.0
        if known.kind == "matmul" and read[1]:
            rows = flops * item_bytes(dtype) / (2 * read[1])
        return operator_seconds(self.device(rank), flops, moved, dtype, local.op, rows)

    def flops(self, local: Local, rank: int) -> float:
        values = self.program.values
        shapes = [values[name].shape if name else None for name in local.inputs]
        rule = rule_of(local.op, local.attrs, shapes, [values[name].shape for name in local.outputs])
        sizes = {name: int(factor.size) for name, factor in rule.factors.items()}
        for name, split in local.splits.items():
            a, b = split.at(rank, self.program.mesh)
            sizes[name] = b - a
        return float(flops(local.op, rule, sizes))
