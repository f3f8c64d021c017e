"""Traced calls: as events that Perfetto reads, and as predicted and measured time by class of instruction."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from unitp.comparison.breakdown import CALL, INSTRUCTIONS, SEGMENTS, breakdown, class_of
from unitp.cost import Machine
from unitp.errors import InputError
from unitp.graph.ops import known_ops
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.program.analysis import per_call
from unitp.program.instructions import AllReduce, Local, Mask, Program, Slice
from unitp.program.lower import lower
from unitp.program.objective import predict
from unitp.ranks.progress import Page, PageProgress
from unitp.report import trace
from unitp.session.session import TracedCall
from unitp.testing.models import EAGER_TO_SPLIT, tiny
from unitp.wire.messages import Trace

MACHINE = msgspec.structs.replace(Machine(), name="default")


@pytest.fixture(scope="module")
def program() -> Program:
    model = tiny()
    made = plan(Request(model.graph, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    sizes = {"batch": 1, "seq": 1, "cache": 256, "live": 128, "take": 1, "candidates": 1}
    return lower(model.graph, made, "decode", sizes)


def call(program: Program, factor: float, every: int = 1, begun: int = 10**9) -> TracedCall:
    """A call in which each instruction takes `factor` times what is predicted; `every`: so many instructions have one mark."""
    prediction = predict(program, MACHINE)
    traces = []
    for rank in range(program.mesh.size):
        now, marks = begun + 1000 * (rank + 1), []
        for place, (number, seconds) in enumerate(prediction.instructions.items()):
            if place % every == 0:
                marks.append((number, now))
            now += round(seconds * factor * 1e9)
        traces.append(Trace(begun + 1000 * rank, now, tuple(marks)))
    return TracedCall(program, begun, max(t.ended for t in traces) + 5000, tuple(traces))


def test_every_instruction_has_a_class() -> None:
    assert class_of(AllReduce("x", "y", "tp")) == "all_reduce"
    assert class_of(Slice("x", "y", 0)) == class_of(Mask("x", "y", "tp")) == "data movement"
    classes = {op: class_of(Local(op, ("x",), ("y",))) for op in known_ops()}
    assert classes["Gemm"] == "matmul"
    assert classes["Swish"] == classes["Pow"] == "elementwise"
    assert classes["Concat"] == "data movement"


@pytest.mark.parametrize("every, basis", [(1, INSTRUCTIONS), (7, SEGMENTS)])
def test_classes_add_up_to_what_was_measured(program: Program, every: int, basis: str) -> None:
    (phase,) = breakdown([call(program, 1.5, every), call(program, 1.5, every, begun=2 * 10**9)], MACHINE)
    prediction = predict(program, MACHINE)
    assert (phase.phase, phase.calls, phase.basis) == ("decode", 2, basis)
    assert phase.predicted_s == pytest.approx(prediction.seconds)
    assert sum(line.measured_s for line in phase.lines) == pytest.approx(phase.measured_s)
    assert sum(line.predicted_s for line in phase.lines) == pytest.approx(phase.predicted_s)
    assert sum(line.count for line in phase.lines) == len(list(per_call(program)))
    for line in phase.lines:
        if line.name != CALL and line.predicted_s:
            assert line.measured_s == pytest.approx(1.5 * line.predicted_s, rel=0.02), line
    assert phase.error == pytest.approx(phase.predicted_s / phase.measured_s - 1)


def test_calls_of_unlike_sizes_are_told_apart(program: Program) -> None:
    other = msgspec.structs.replace(program, sizes={**program.sizes, "live": 256})
    found = breakdown([call(program, 1.0), call(other, 1.0), call(program, 1.0)], MACHINE)
    assert [(p.sizes["live"], p.calls) for p in found] == [(128, 2), (256, 1)]


def spans(events: list[dict[str, Any]], pid: int, tid: int) -> list[dict[str, Any]]:
    return [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == (pid, tid)]


@pytest.mark.parametrize("every", [1, 7])
def test_a_trace_has_every_rank_measured_and_predicted(program: Program, tmp_path: Path, every: int) -> None:
    file = tmp_path / "trace.json"
    trace.save([call(program, 1.25, every), call(program, 1.25, every, begun=2 * 10**9)], MACHINE, file, "tiny")
    found = json.loads(file.read_bytes())
    events = found["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {0: "rank 0", 1: "rank 1", 2: "driver of tiny"}
    assert names == {
        (0, 1): "measured",
        (0, 2): "predicted",
        (1, 1): "measured",
        (1, 2): "predicted",
        (2, 1): "measured",
    }
    prediction = predict(program, MACHINE)
    for rank in range(2):
        for tid, instructions in ((1, -(-len(prediction.instructions) // every)), (2, len(prediction.instructions))):
            own = spans(events, rank, tid)
            calls = [e for e in own if e["cat"] == "call"]
            assert len(calls) == 2
            assert len(own) == 2 + 2 * instructions
            for outer in calls:
                ends = outer["ts"] + outer["dur"] + 1e-3
                inner = [e for e in own if e["cat"] != "call" and outer["ts"] <= e["ts"] < ends]
                assert all(e["ts"] + e["dur"] <= ends for e in inner), "events nest"
                assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in itertools.pairwise(inner))
                assert sum(e["dur"] for e in inner) == pytest.approx(outer["dur"], rel=0.05)
        measured, predicted = (spans(events, rank, tid)[0]["dur"] for tid in (1, 2))
        assert predicted == pytest.approx(prediction.seconds * 1e6)
        assert measured == pytest.approx(1.25 * prediction.seconds * 1e6, rel=0.05)
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in events if e["ph"] == "X")


def test_a_trace_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no calls"):
        trace.trace([], MACHINE)


def test_a_trace_that_cannot_be_written(program: Program, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the trace"):
        trace.save([call(program, 1.0)], MACHINE, tmp_path / "no" / "where.json")


def test_progress_notes_times_only_while_it_records(tmp_path: Path) -> None:
    page = Page(tmp_path / "page", create=True)
    progress = PageProgress(page)
    progress.at(3)
    assert page.instruction == 3
    progress.record()
    for number in (4, 9):
        progress.at(number)
    assert page.instruction == 9
    marks = progress.recorded()
    assert [number for number, _ in marks] == [4, 9]
    assert marks[0][1] <= marks[1][1]
    progress.at(5)
    assert page.instruction == 5
    assert progress.recorded() == []
