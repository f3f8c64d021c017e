"""Measured and predicted seconds of calls, by phase and by class of instruction.

Ranks report when each instruction began (`Session.tracing`); it lasts until the next one begins. If a framework runs several
instructions in one call, ranks report only such segments: the seconds of a segment are divided among its instructions in proportion
to their predicted seconds.
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
"""The class of what a call costs besides its instructions: the driver, the wire, and what engines do before and after."""

INSTRUCTIONS, SEGMENTS = "instructions", "segments, shared out as predicted"


class Line(msgspec.Struct, frozen=True):
    """A class of instructions in one call: their number, and their predicted and measured seconds."""

    name: str
    count: int
    predicted_s: float
    measured_s: float


class PhaseTimes(msgspec.Struct, frozen=True):
    """The medians over `calls` of a phase. `basis`: whether ranks reported instructions or segments."""

    phase: str
    sizes: dict[str, int]
    calls: int
    predicted_s: float
    measured_s: float
    basis: str
    lines: tuple[Line, ...]

    @property
    def error(self) -> float:
        """The error of the predicted seconds, as a fraction of the measured ones."""
        return self.predicted_s / self.measured_s - 1


def class_of(instruction: Instruction) -> str:
    """Return the class of an instruction: that of its operator, its kind of collective, or "data movement"."""
    if isinstance(instruction, Collective):
        return kind_of(instruction)
    if not isinstance(instruction, Local):
        return "data movement"
    return operator(instruction.op).kind


def breakdown(calls: Sequence[TracedCall], machine: Machine) -> list[PhaseTimes]:
    """Return the times of each phase and sizes among these calls, in the order of their first call."""
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
    """Return what the marks of a call stand for: most single instructions have a mark (some do nothing on a rank), or segments do."""
    marked = max(len({number for number, _ in trace.marks}) for trace in call.traces)
    return INSTRUCTIONS if marked > sum(1 for _ in per_call(program)) / 2 else SEGMENTS


def seconds_of_marks(call: TracedCall, numbers: Collection[int]) -> Iterator[float]:
    """Yield the seconds from the mark of each of these instructions to the next mark, on every rank."""
    for trace in call.traces:
        ends = (*(at for _, at in trace.marks[1:]), trace.ended)
        yield from ((end - at) / 1e9 for (n, at), end in zip(trace.marks, ends, strict=True) if n in numbers)


def spans(program: Program, trace: Trace, numbers: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield begin, end (in nanoseconds) and instructions of each mark: all of `numbers` up to the next higher marked number."""
    marks = [*sorted({number for number, _ in trace.marks}), len(program.instructions)]
    following = dict(pairwise(marks))
    ends = (*(at for _, at in trace.marks[1:]), trace.ended)
    seen: set[int] = set()
    for (number, begun), ended in zip(trace.marks, ends, strict=True):
        members = [] if number in seen else [n for n in numbers if number <= n < following[number]]
        seen.add(number)
        yield begun, ended, members or [number]


def _classes(call: TracedCall, prediction: Prediction, names: dict[int, str]) -> dict[str, float]:
    """Return the seconds of each class, the mean over ranks."""
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
