"""Several steps in the ranks say what single steps would say, however many they are, wherever rows stop or something goes wrong.

What is right is known without a session: each sequence by itself, by `unitp_fake.answers` and `choose`. The ranks are here in this
process, on an engine whose every answer depends on all that its row of the caches holds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unitp_fake import SPEC
from unitp_fake.answers import scores
from unitp_fake.executor import FakeEngine
from unitp_fake.local import LocalCluster

from unitp import planner
from unitp.engine.engine import Array, Progress
from unitp.engine.sampling import Sampling, choose
from unitp.errors import InputError, RankError
from unitp.mesh import Mesh
from unitp.plans import Plan
from unitp.program.instructions import Program
from unitp.ranks.serve import Worker
from unitp.session import generation
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT, TINY, tiny
from unitp.wire.messages import Decode, Decoded, Reply, Request, Run

VOCAB, CONTEXT = TINY.vocab, 200
MESHES = ("tp=1", "tp=2", "dp=2", "dp=2,tp=2")
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.8, top_k=5, seed=3),
    Sampling(temperature=1.3, top_k=12, top_p=0.9, seed=4),
    Sampling(temperature=0.7, seed=5),
)


class Engine(FakeEngine):
    """Refuses, once, the step that writes at place `refused`; knows no answer (NaN) after rows of `silent` tokens."""

    pause = 0.0
    refused = silent = -1

    def __init__(self, rank: int, mesh: Mesh, progress: Progress) -> None:
        super().__init__(rank, mesh, progress, VOCAB)
        self.pause = 0.0

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        outputs = super().run(key, inputs, bank)
        if inputs["write_indices"].shape[0] and self.refused in inputs["write_indices"]:
            self.refused = -1
            raise InputError("place refused")
        return outputs

    def answers(self, program: Program, inputs: dict[str, Array], rows: Array) -> dict[str, Array]:
        found = super().answers(program, inputs, rows)
        for row, (start, at) in enumerate(zip(inputs["write_indices"], inputs["logits_index"], strict=True)):
            if start + at.max() + 1 == self.silent:
                found["logits"] = found["logits"].copy()
                found["logits"][row], found["top_values"][row] = np.nan, np.nan
        return found


@lru_cache
def planned(mesh: str) -> Plan:
    return planner.plan(planner.Request(tiny().graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))


def note(worker: Worker, asked: list[Any]) -> None:
    """From now on, what the worker is asked for is noted."""
    carry_out = worker.carry_out

    def noted(request: Request) -> Reply:
        asked.append(request)
        return carry_out(request)

    worker.carry_out = noted  # type: ignore[method-assign]


@contextmanager
def session(mesh: str, steps: int) -> Iterator[tuple[Session, list[Any]]]:
    """A session on ranks in this process, whose requests have up to so many steps; and those requests, as they are made."""
    cluster = LocalCluster(Mesh.parse(mesh), Engine)
    asked: list[Any] = []
    for worker in cluster.workers:
        note(worker, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "MOST_STEPS", steps)
        patch.setattr(generation, "TURN_S", 1e9)
        made = Session(tiny().graph, planned(mesh), SPEC, "float32", cluster, {}, CONTEXT, 8)  # type: ignore[arg-type]
        with made:
            yield made, asked


class Wanted(NamedTuple):
    """What is asked for, and when sequences are stopped from outside: after so many steps."""

    prompts: list[list[int]]
    new: int
    sampling: Sampling
    stop_ids: frozenset[int]
    stopped: dict[int, int]

    def tokens(self, sequence: int) -> tuple[list[int], str]:
        """The right tokens of a sequence, and why it ends."""
        made: list[int] = []
        prompt, until = self.prompts[sequence], self.stopped.get(sequence, 10**6)
        while True:
            if made and made[-1] in self.stop_ids:
                return made, "stop"
            if len(made) >= until:
                return made, "stop"
            if len(made) >= min(self.new, CONTEXT - len(prompt)):
                return made, "length"
            logits = scores([*prompt, *made], VOCAB)
            made.append(choose(logits, np.arange(VOCAB), self.sampling, sequence, len(made)))


@st.composite
def wanted(draw: st.DrawFn) -> Wanted:
    token = st.integers(0, VOCAB - 1)
    prompts = draw(st.lists(st.lists(token, min_size=1, max_size=40), min_size=2, max_size=4))
    stopped = draw(st.dictionaries(st.integers(0, len(prompts) - 1), st.integers(1, 30), max_size=2))
    stop_ids = draw(st.sets(token, max_size=VOCAB // 12))
    sampling = draw(st.sampled_from(SAMPLINGS))
    return Wanted(prompts, draw(st.integers(0, 70)), sampling, frozenset(stop_ids), stopped)


def require(made: Session, asked: Wanted) -> None:
    """Assert that a generation says what is right, step by step."""
    one = made.generation(asked.prompts, asked.new, sampling=asked.sampling, stop_ids=[*asked.stop_ids])
    right = [asked.tokens(sequence) for sequence in range(len(asked.prompts))]
    for step in range(max(len(tokens) for tokens, _ in right)):
        assert next(one) == [tokens[step] if step < len(tokens) else None for tokens, _ in right]
        for sequence, after in asked.stopped.items():
            if after == step + 1:
                one.stop(sequence)
        assert one.tokens == [tokens[: step + 1] for tokens, _ in right]
    assert list(one) == []
    assert one.tokens == [tokens for tokens, _ in right]
    assert one.finish_reasons == [why for _, why in right]


@settings(max_examples=60)
@given(wanted(), st.sampled_from(MESHES), st.sampled_from((1, 2, 3, 16, 64)))
def test_any_number_of_steps_says_the_same(asked: Wanted, mesh: str, steps: int) -> None:
    with session(mesh, steps) as (made, _):
        require(made, asked)
        require(made, asked._replace(sampling=SAMPLINGS[1], prompts=asked.prompts[::-1]))


@settings(max_examples=30)
@given(wanted(), st.sampled_from(MESHES), st.sampled_from((1, 3, 16)), st.integers(0, 60))
def test_a_step_that_is_refused_is_told_once_and_made_again(asked: Wanted, mesh: str, steps: int, place: int) -> None:
    with session(mesh, steps) as (made, _):
        for worker in made.cluster.workers:  # type: ignore[attr-defined]
            worker.engine.refused = place
        one = made.generation(asked.prompts, asked.new, sampling=asked.sampling, stop_ids=[*asked.stop_ids])
        right = [asked._replace(stopped={}).tokens(sequence)[0] for sequence in range(len(asked.prompts))]
        refusals = 0
        while one.tokens != right:
            try:
                next(one)
            except InputError:
                refusals += 1
        assert list(one) == []
        assert refusals <= made.plan.mesh.sizes.get("dp", 1)


@settings(max_examples=30)
@example(Wanted([[0, 0], [0, 0, 0]], 4, SAMPLINGS[0], frozenset(), {}), "dp=2", 3, 5)
@given(wanted(), st.sampled_from(MESHES), st.sampled_from((1, 3, 16)), st.integers(1, 60))
def test_what_is_not_finite_is_told_where_it_comes(asked: Wanted, mesh: str, steps: int, silent: int) -> None:
    """After all tokens before it, again and again; other generations go on."""
    asked = asked._replace(stopped={}, sampling=SAMPLINGS[1])
    right = [asked.tokens(sequence)[0] for sequence in range(len(asked.prompts))]
    steps_before = [
        silent - len(prompt)
        for prompt, tokens in zip(asked.prompts, right, strict=True)
        if 0 <= silent - len(prompt) < len(tokens)
    ]
    with session(mesh, steps) as (made, _):
        for worker in made.cluster.workers:  # type: ignore[attr-defined]
            worker.engine.silent = silent
        one = made.generation(asked.prompts, asked.new, sampling=asked.sampling, stop_ids=[*asked.stop_ids])
        if not steps_before:
            assert [list(one), one.tokens][1] == right
            return
        for _ in range(min(steps_before)):
            next(one)
        for _ in range(2):
            with pytest.raises(
                RankError, match=f"the model's output is nan at new token {min(steps_before)} of sequence"
            ):
                next(one)
        assert one.tokens == [tokens[: min(steps_before)] for tokens in right]
        for worker in made.cluster.workers:  # type: ignore[attr-defined]
            worker.engine.silent = -1
        assert [list(one), one.tokens][1] == right


def test_requests_grow_and_stay_within_what_may_be_made() -> None:
    with session("tp=2", 16) as (made, asked):
        list(made.generate([1, 2, 3], 60))
        steps = [request.rules.steps for request in asked[::2] if isinstance(request, Decode)]
        assert steps == [1, 2, 4, 8, 16, 16, 12]
        assert sum(isinstance(request, Run) for request in asked) == 2  # the prompt, on each rank


def test_no_request_has_steps_of_two_programs() -> None:
    """From 128 rows of the caches on, more are read."""
    with session("tp=1", 64) as (made, asked):
        tokens = list(made.generate([1] * 100, 60))
        requests = [request for request in asked if isinstance(request, Decode)]
        before = [r.rules.steps for r in requests if r.key == requests[0].key]
        assert sum(before) == 28
        assert len({request.key for request in requests}) == 2
        assert tokens == Wanted([[1] * 100], 60, Sampling(), frozenset(), {}).tokens(0)[0]


def test_nobody_waits_for_more_than_a_step_of_somebody_else() -> None:
    """Two generations in turn: each finds the other waiting when its request ends."""
    with session("tp=1", 16) as (made, asked):
        (worker,) = made.cluster.workers  # type: ignore[attr-defined]
        carry_out = worker.carry_out

        def until_the_other_waits(request: Request) -> Reply:
            reply, deadline = carry_out(request), time.monotonic() + 1.0
            while isinstance(request, Decode) and not made.courier.awaited and time.monotonic() < deadline:
                time.sleep(0.001)
            return reply

        worker.carry_out = until_the_other_waits
        first, second = made.generation([[1, 2]], 12), made.generation([[3, 4]], 12)
        for _ in zip(first, second, strict=True):
            pass
        assert {request.rules.steps for request in asked if isinstance(request, Decode)} == {1}


def test_a_trace_has_a_call_for_each_step() -> None:
    with session("tp=1", 16) as (made, asked), made.tracing() as calls:
        list(made.generate([1, 2, 3], 9))
        assert [call.program.sizes["seq"] for call in calls] == [16, *[1] * 8]
        assert not any(isinstance(request, Decode) for request in asked)


def test_ranks_that_decide_otherwise_are_told() -> None:
    with session("tp=2", 16) as (made, _):
        worker = made.cluster.workers[1]  # type: ignore[attr-defined]
        carry_out = worker.carry_out

        def other(request: Any) -> Any:
            reply = carry_out(request)
            return Decoded(((5,), *reply.steps[1:])) if isinstance(reply, Decoded) else reply

        tokens = made.generate([1, 2, 3], 9)
        next(tokens)
        worker.carry_out = other
        with pytest.raises(RankError, match="rank 1 has decided on other tokens than rank 0"):
            list(tokens)
        worker.carry_out = carry_out
        assert list(made.generate([1, 2, 3], 9)) == Wanted([[1, 2, 3]], 9, Sampling(), frozenset(), {}).tokens(0)[0]
