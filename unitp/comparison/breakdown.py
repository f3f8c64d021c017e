"""Measured seconds of calls, by phase and by class of instruction, beside what was predicted.

Ranks tell when each instruction began (`Session.tracing`); its seconds are those to the next. Where a framework runs several
instructions in one call, ranks tell of these segments only: a segment's seconds are then shared out among its instructions
as they were predicted, so that classes differ from the prediction by how segments do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from unitp.cost import Machine
from unitp.graph.ops import operator
from unitp.program.analysis import per_call
from unitp.program.instructions import Collective, Instruction, Local, Program, kind_of
from unitp.program.objective import Prediction, predict
from unitp.session.session import TracedCall
from unitp.wire.messages import Trace

CALL = "call"
"""What a call costs beside its instructions: the driver, the wire, what engines do before and after."""

INSTRUCTIONS, SEGMENTS = "instructions", "segments, shared out as predicted"


class Line(msgspec.Struct, frozen=True):
    """A class of instructions in one call: how many, and seconds."""

    name: str
    count: int
    predicted_s: float
    measured_s: float


class PhaseTimes(msgspec.Struct, frozen=True):
    """One call of a phase, the median of `calls` of them. `basis`: what the measured seconds of classes are of."""

    phase: str
    sizes: dict[str, int]
    calls: int
    predicted_s: float
    measured_s: float
    basis: str
    lines: tuple[Line, ...]

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted_s / self.measured_s - 1


def class_of(instruction: Instruction) -> str:
    """The class of an instruction: of operators by name, of collectives by kind."""
    if isinstance(instruction, Collective):
        return kind_of(instruction)
    if not isinstance(instruction, Local):
        return "data movement"
    return operator(instruction.op).kind


def breakdown(calls: Sequence[TracedCall], machine: Machine) -> list[PhaseTimes]:
    """The phases of these calls, in the order in which they first came. Calls of unlike sizes are told apart."""
    groups: dict[tuple[object, ...], list[TracedCall]] = {}
    for call in calls:
        groups.setdefault((call.program.phase, *call.program.sizes.items()), []).append(call)
    return [_phase(group, machine) for group in groups.values()]


def _phase(calls: Sequence[TracedCall], machine: Machine) -> PhaseTimes:
    program = calls[0].program
    prediction = predict(program, machine)
    names = {number: class_of(program.instructions[number]) for number in prediction.instructions}
    measured = [_classes(call, prediction, names) for call in calls]
    lines = []
    for name in dict.fromkeys([*names.values(), CALL]):
        members = [number for number, of in names.items() if of == name]
        predicted = sum(prediction.instructions[n] for n in members) + prediction.call_s * (name == CALL)
        lines.append(Line(name, len(members), predicted, median(found.get(name, 0.0) for found in measured)))
    lines.sort(key=lambda line: -line.measured_s)
    return PhaseTimes(
        phase=program.phase,
        sizes=program.sizes,
        calls=len(calls),
        predicted_s=prediction.seconds,
        measured_s=median((call.ended - call.begun) / 1e9 for call in calls),
        basis=basis_of(calls[0], program),
        lines=tuple(lines),
    )


def basis_of(call: TracedCall, program: Program) -> str:
    """Whether a call's marks are of single instructions. Some may have nothing to do on a rank."""
    marked = max(len({number for number, _ in trace.marks}) for trace in call.traces)
    return INSTRUCTIONS if marked > sum(1 for _ in per_call(program)) / 2 else SEGMENTS


def seconds_of_marks(call: TracedCall, numbers: Collection[int]) -> Iterator[float]:
    """Seconds from the mark of each of these instructions to the next mark, on every rank."""
    for trace in call.traces:
        ends = (*(at for _, at in trace.marks[1:]), trace.ended)
        yield from ((end - at) / 1e9 for (n, at), end in zip(trace.marks, ends, strict=True) if n in numbers)


def spans(program: Program, trace: Trace, numbers: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Begin, end and instructions of each mark: from its own to the one before the next higher mark."""
    marks = [*sorted({number for number, _ in trace.marks}), len(program.instructions)]
    following = dict(pairwise(marks))
    ends = (*(at for _, at in trace.marks[1:]), trace.ended)
    seen: set[int] = set()
    for (number, begun), ended in zip(trace.marks, ends, strict=True):
        members = [] if number in seen else [n for n in numbers if number <= n < following[number]]
        seen.add(number)
        yield begun, ended, members or [number]


def _classes(call: TracedCall, prediction: Prediction, names: dict[int, str]) -> dict[str, float]:
    """Seconds by class, mean over ranks."""
    found: dict[str, float] = {}
    single = basis_of(call, call.program) == INSTRUCTIONS
    for trace in call.traces:
        for begun, ended, members in spans(call.program, trace, [*names]):
            own = members[:1] if single else members
            weights = [prediction.instructions.get(n, 0.0) for n in own]
            total = sum(weights)
            for number, weight in zip(own, weights, strict=True):
                share = weight / total if total else 1 / len(own)
                name = names.get(number, class_of(call.program.instructions[number]))
                found[name] = found.get(name, 0.0) + share * (ended - begun) / 1e9 / len(call.traces)
    found[CALL] = (call.ended - call.begun) / 1e9 - sum(found.values())
    return found
