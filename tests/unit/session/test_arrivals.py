"""Tokens of ranks become steps of the batch as soon as all rows have theirs, and ranks that differ are found out."""

from __future__ import annotations

import pytest

from unitp.errors import RankError
from unitp.program.rows import Rows
from unitp.session.arrivals import Arrivals, Step
from unitp.wire.messages import NO_TOKEN, Decoded, Done, Told

GROUPS = {0: (0, 2), 2: (2, 3)}
"""Two groups of two ranks, the first of which speaks for its rows."""

DECIDED = [Rows(GROUPS[rank - rank % 2], {}, "values", "ids", True) for rank in range(4)]


def arrivals() -> tuple[Arrivals, list[Step]]:
    said: list[Step] = []
    return Arrivals(3, GROUPS, said.append), said


def test_a_step_is_said_when_all_rows_have_told_theirs() -> None:
    made, said = arrivals()
    made.heard(0, Told((1, 2)))
    made.heard(0, Told((3, NO_TOKEN)))
    assert said == []
    made.heard(2, Told((9,)))
    assert said == [[1, 2, 9]]
    made.heard(2, Told((8,)))
    assert said == [[1, 2, 9], [3, None, 8]]


def test_rows_that_have_ended_are_not_waited_for() -> None:
    made, said = arrivals()
    made.heard(0, Told((1, 2)))
    made.heard(2, Told((9,)))
    made.heard(2, Told((8,)))
    assert len(said) == 1
    made.heard(0, Decoded(((1, 2),)))
    assert said[1:] == [[None, None, 8]]


def test_the_steps_after_a_problem_are_not_said() -> None:
    made, said = arrivals()
    replies = {
        0: Decoded(((1, 2),), "nan"),
        1: Decoded(((1, 2),), "nan"),
        2: Decoded(((9,), (8,))),
        3: Decoded(((9,), (8,))),
    }
    made.heard(0, Told((1, 2)))
    made.heard(2, Told((9,)))
    made.heard(2, Told((8,)))
    for rank, reply in replies.items():
        made.heard(rank, reply)
    assert said == [[1, 2, 9]]
    assert made.problem(DECIDED, replies) == "nan"


@pytest.mark.parametrize("later", ["", "inf, later"])
def test_the_first_problem_counts(later: str) -> None:
    made, _ = arrivals()
    replies = {0: Decoded(((1, 2), (3, 4)), later), 2: Decoded(((9,),), "nan")}
    for rank in GROUPS:
        for tokens in replies[rank].steps:
            made.heard(rank, Told(tokens))
        made.heard(rank, replies[rank])
    assert made.problem(DECIDED, {0: replies[0], 1: replies[0], 2: replies[2], 3: replies[2]}) == "nan"


def test_ranks_with_the_same_rows_have_to_agree() -> None:
    made, _ = arrivals()
    made.heard(0, Told((1, 2)))
    made.heard(2, Told((9,)))
    right = {0: Decoded(((1, 2),)), 1: Decoded(((1, 2),)), 2: Decoded(((9,),)), 3: Decoded(((9,),))}
    assert made.problem(DECIDED, right) == ""
    for other in (Decoded(((1, 3),)), Decoded(()), Decoded(((1, 2),), "nan")):
        with pytest.raises(RankError, match="rank 1 has decided on other tokens than rank 0"):
            made.problem(DECIDED, {**right, 1: other})


def test_what_no_rank_should_say_is_an_error_in_the_end() -> None:
    made, said = arrivals()
    made.heard(0, Told((1, 2, 3)))
    made.heard(1, Told((1, 2)))
    made.heard(3, Done())
    assert said == []
    right = {0: Decoded(()), 1: Decoded(()), 2: Decoded(()), 3: Decoded(())}
    with pytest.raises(RankError, match="made no step"):
        made.problem(DECIDED, right)
    with pytest.raises(RankError, match="rank 3 answered Done instead of tokens"):
        made.problem(DECIDED, {**right, 3: Done()})
    made.heard(0, Told((1, 2)))
    with pytest.raises(RankError, match="rank 0 told other tokens step by step than in the end"):
        made.problem(DECIDED, right)
