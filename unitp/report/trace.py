"""Calls of programs as a trace for Perfetto and chrome://tracing: ranks are processes, with prediction and measurement side by side.

Each rank has two threads, `measured` and `predicted`; the driver is a process, too. The span of a call contains the spans of its
instructions (or segments, if a framework runs several instructions in one call). The predicted instructions follow each other from
the begin of the call on, so that a measured instruction that takes too long falls behind its prediction.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format): complete events ("X"),
microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from unitp.comparison.breakdown import class_of, spans
from unitp.cost import Machine
from unitp.errors import InputError
from unitp.host import writing
from unitp.program.instructions import Local, Program, writes
from unitp.program.objective import Prediction, predict
from unitp.session.session import TracedCall
from unitp.wire.messages import Trace

MEASURED, PREDICTED = 1, 2
"""The threads of a rank."""

Event = dict[str, Any]


def trace(calls: Sequence[TracedCall], machine: Machine, title: str = "unitp") -> dict[str, Any]:
    """Return the trace of these calls as an object for JSON. Raises InputError if there are no calls."""
    if not calls:
        raise InputError("there are no calls to trace", hint="Run a program inside `with session.tracing() as calls`.")
    return {"traceEvents": [*_names(calls, title), *_events(calls, machine)], "displayTimeUnit": "ms"}


def save(calls: Sequence[TracedCall], machine: Machine, path: str | os.PathLike[str], title: str = "unitp") -> None:
    """Write the trace to a file. Raises InputError if there are no calls or it cannot be written, HostError if the disk is full."""
    with writing(path, "the trace"):
        Path(path).write_bytes(msgspec.json.encode(trace(calls, machine, title)))


def _names(calls: Sequence[TracedCall], title: str) -> Iterator[Event]:
    ranks = calls[0].program.mesh.size
    for pid in range(ranks + 1):
        name = f"rank {pid}" if pid < ranks else f"driver of {title}"
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
        for tid, thread in ((MEASURED, "measured"), (PREDICTED, "predicted")):
            if pid < ranks or tid == MEASURED:
                yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": thread}}


def _events(calls: Sequence[TracedCall], machine: Machine) -> Iterator[Event]:
    start = min(call.begun for call in calls)
    known: dict[int, Prediction] = {}
    for call in calls:
        if id(call.program) not in known:
            known[id(call.program)] = predict(call.program, machine)
        prediction, name = known[id(call.program)], _call_name(call.program)
        yield _span(name, "call", len(call.traces), MEASURED, call.begun - start, call.ended - call.begun)
        for rank, found in enumerate(call.traces):
            yield from _measured(call.program, found, prediction, rank, name, start)
            yield from _predicted(call.program, prediction, rank, name, found.begun - start)


def _measured(
    program: Program, found: Trace, prediction: Prediction, rank: int, name: str, start: int
) -> Iterator[Event]:
    yield _span(name, "call", rank, MEASURED, found.begun - start, found.ended - found.begun)
    for begun, ended, members in spans(program, found, [*prediction.instructions]):
        predicted = sum(prediction.instructions.get(n, 0.0) for n in members)
        text = _instruction_name(program, members[0])
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        about = {"instruction": members[0], "last": members[-1], "predicted_us": round(predicted * 1e6, 3)}
        kind = class_of(program.instructions[members[0]]) if len(members) == 1 else "segment"
        yield _span(text + more, kind, rank, MEASURED, begun - start, ended - begun, about)


def _predicted(program: Program, prediction: Prediction, rank: int, name: str, at: float) -> Iterator[Event]:
    yield _span(name, "call", rank, PREDICTED, at, prediction.seconds * 1e9)
    for number, seconds in prediction.instructions.items():
        kind = class_of(program.instructions[number])
        yield _span(
            _instruction_name(program, number), kind, rank, PREDICTED, at, seconds * 1e9, {"instruction": number}
        )
        at += seconds * 1e9


def _span(
    name: str, kind: str, pid: int, tid: int, at_ns: float, long_ns: float, about: dict[str, Any] | None = None
) -> Event:
    made: Event = {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": pid,
        "tid": tid,
        "ts": at_ns / 1e3,
        "dur": long_ns / 1e3,
    }
    return made | ({"args": about} if about else {})


def _call_name(program: Program) -> str:
    sizes = ", ".join(f"{name} {size}" for name, size in program.sizes.items() if name in ("batch", "seq", "live"))
    return f"{program.phase} ({sizes})" if sizes else program.phase


def _instruction_name(program: Program, number: int) -> str:
    instruction = program.instructions[number]
    what = instruction.op if isinstance(instruction, Local) else class_of(instruction)
    return f"{what} {writes(instruction)[0]}"
