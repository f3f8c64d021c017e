"""What is read from traces: how long an all-reduce takes on the rank that comes later."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from speed.sessions import later, speller

from unitp.program.instructions import AllReduce
from unitp.session.executor import TracedCall
from unitp.testing.models import tiny
from unitp.wire.messages import Trace

OTHER, REDUCE = object(), AllReduce("y", "z", "tp")
PROGRAM: Any = SimpleNamespace(instructions=(OTHER, REDUCE, OTHER, OTHER, REDUCE, OTHER))


def call(*marks: tuple[tuple[int, int], ...], ended: int = 100_000) -> TracedCall:
    """A call with these marks on each rank: instructions, and the nanosecond at which each began."""
    return TracedCall(PROGRAM, 0, ended, tuple(Trace(0, ended, rank) for rank in marks))


def test_the_later_rank_tells_what_an_all_reduce_takes():
    """The earlier one waits for it besides."""
    early = ((0, 0), (1, 10_000), (2, 60_000))
    late = ((0, 0), (1, 50_000), (2, 61_000))
    assert later(call(early, late)) == [pytest.approx(11e-6)]
    assert later(call(late, early)) == [pytest.approx(11e-6)]


def test_every_all_reduce_of_a_call_counts():
    rank = ((0, 0), (1, 1000), (2, 3000), (3, 4000), (4, 5000), (5, 9000))
    assert later(call(rank, rank)) == [pytest.approx(2e-6), pytest.approx(4e-6)]


def test_a_segment_that_begins_with_an_all_reduce_is_not_taken_for_one():
    segments = ((1, 50_000), (4, 60_000))
    assert later(call(segments, segments)) == []


def test_a_collective_between_two_segments_is_noted_twice_and_the_first_time_counts():
    """What is left of the instruction begins the segment that follows."""
    rank = ((0, 0), (1, 1000), (1, 6000), (4, 7000), (4, 9000))
    assert later(call(rank, rank)) == [pytest.approx(5e-6), pytest.approx(2e-6)]


def test_an_all_reduce_counts_where_all_ranks_note_it():
    assert later(call(((0, 0), (1, 10_000), (2, 60_000)), ((0, 0), (2, 60_000)))) == []


def test_tokens_of_a_model_without_a_tokenizer_are_spelled_as_numbers():
    assert "17" in speller(tiny())([17, 4])
