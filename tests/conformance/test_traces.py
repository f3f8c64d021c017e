"""However long prompts are, a framework traces a bounded number of shapes: one for each bucket of sizes, and none again."""

from __future__ import annotations

import numpy as np
import pytest

from unitp.engine.engine import EngineStats
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plugins.discover import backends
from unitp.session.decoder import CHUNK, SMALLEST_CHUNK, SMALLEST_LIVE, chunk_width, live_rows
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT, tiny

CONTEXT, NEW = 512, 3
LENGTHS = [1, 2, 3, 5, 9, 15, 16, 17, 23, 31, 40, 63, 77, 100, 127, 128, 130, 250, 333, 490]
PIECES = 3
"""What a decoder is traced in: what comes before its layers, a layer, what comes after."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def buckets() -> set[tuple[int, int]]:
    """The widths of calls and rows of the cache that prompts of these lengths, and tokens after them, fall into."""
    found = set()
    for length in LENGTHS:
        past, left = 0, length
        while left:
            width = chunk_width(left, past, CONTEXT)
            found.add((width, live_rows(past + width, CONTEXT)))
            past, left = past + min(width, left), left - min(width, left)
        found |= {(1, live_rows(place + 1, CONTEXT)) for place in range(length, length + NEW - 1)}
    return found


def test_buckets_are_few() -> None:
    widths = {1, *(2**i for i in range(4, 10))}
    assert len(set(LENGTHS)) == 20
    assert {width for width, _ in buckets()} <= widths
    assert max(widths) == CHUNK
    assert min(widths - {1}) == SMALLEST_CHUNK
    assert {live for _, live in buckets()} == {SMALLEST_LIVE, 2 * SMALLEST_LIVE, 4 * SMALLEST_LIVE}
    assert len(buckets()) < 12


@pytest.mark.parametrize("mesh", ["tp=1", pytest.param("tp=2", marks=pytest.mark.full)])
@pytest.mark.parametrize("backend", sorted(backends()))
def test_twenty_prompts_cause_no_more_traces_than_there_are_buckets(backend: str, mesh: str) -> None:
    model = tiny()
    plan = plan_graph(Request(model.graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))
    with launch(model, plan, backend, context=CONTEXT) as session:
        first = traced(session)
        for stats in first:
            assert 0 < stats.traces <= len(buckets())
            assert stats.functions <= PIECES * len(buckets())
        assert len(session.programs) == len(buckets())
        again = traced(session)
        assert [(s.traces, s.functions) for s in again] == [(s.traces, s.functions) for s in first]
        if backend == "tensorflow":
            require_real_counts(session)


def traced(session: Session) -> list[EngineStats]:
    """After generating a few tokens from a prompt of each length."""
    for length in LENGTHS:
        prompt = np.random.default_rng(length).integers(0, 257, length).tolist()
        assert len(list(session.generate(prompt, NEW))) == NEW
    return session.stats()


def require_real_counts(session: Session) -> None:
    """TensorFlow counts functions, each time that their Python runs: some for every bucket, so the count is not constant."""
    counts = [session.stats()]
    for length in (20, 25, 40, 40):  # all logits: programs that have not run yet
        session.run(input_ids=[[1] * length])
        counts.append(session.stats())
    for before, first, same, other, again in zip(*counts, strict=True):
        assert [stats.traces - before.traces for stats in (first, same, other, again)] == [1, 1, 2, 2]
        assert before.functions < first.functions == same.functions < other.functions == again.functions
