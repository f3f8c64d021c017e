"""What one rank feeds, step by step, and how long it stays in step with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unitp.engine.sampling import Sampling
from unitp.errors import InputError
from unitp.program.rows import INPUTS, PLACES, TOKENS, Rows
from unitp.ranks.decoding import decode
from unitp.wire.messages import NO_TOKEN, Decoded, Rules

Fed = list[dict[str, list[Any]]]


class Script:
    """A program that leaves the tokens that it is told to: one list per step, None for a number that is not finite."""

    def __init__(self, *steps: list[int | None]) -> None:
        self.steps, self.fed = list(steps), list[dict[str, list[Any]]]()

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.fed.append({name: array.tolist() for name, array in inputs.items()})
        tokens = self.steps.pop(0)
        values = np.array([[[np.nan if token is None else 1.0]] for token in tokens])
        return {"values": values, "ids": np.array([[[token or 0]] for token in tokens])}


def inputs(*past: int) -> dict[str, Any]:
    """The inputs of a step after so many tokens of each row; row i is fed token 100 + i."""
    places = np.array(past, np.int64)
    return {
        TOKENS: np.arange(100, 100 + len(past))[:, None],
        "position_ids": places[:, None].copy(),
        "write_indices": places.copy(),
        "kv_length": places + 1,
        "logits_index": np.zeros((len(past), 1), np.int64),
    }


def rows(start: int, stop: int, *, apart: bool = True) -> Rows:
    return Rows((start, stop), dict.fromkeys(INPUTS, (start, stop)), "values", "ids", apart)


def run(script: Script, here: Rows, rules: Rules, *past: int) -> tuple[Decoded, list[tuple[int, ...]]]:
    told: list[tuple[int, ...]] = []
    return decode(script, here, inputs(*past), rules, told.append), told


def rules(steps: int, *left: int, stop_ids: tuple[int, ...] = ()) -> Rules:
    return Rules(steps, 1, left, Sampling(), stop_ids)


def test_each_token_is_fed_at_the_next_place() -> None:
    script = Script([7, 8], [9, 10], [11, 12])
    found, told = run(script, rows(0, 2), rules(3, 9, 9), 3, 20)
    assert found == Decoded(((7, 8), (9, 10), (11, 12)))
    assert told == [*found.steps]
    assert [fed[TOKENS] for fed in script.fed] == [[[100], [101]], [[7], [8]], [[9], [10]]]
    assert [fed["write_indices"] for fed in script.fed] == [[3, 20], [4, 21], [5, 22]]
    assert [fed["position_ids"] for fed in script.fed] == [[[3], [20]], [[4], [21]], [[5], [22]]]
    assert [fed["kv_length"] for fed in script.fed] == [[4, 21], [5, 22], [6, 23]]
    assert all(fed["logits_index"] == [[0], [0]] for fed in script.fed)


def test_a_row_that_has_ended_is_fed_its_last_token_at_a_place_of_its_own() -> None:
    """Behind the last token that it holds, and what it is fed there changes nothing that it holds."""
    script = Script([7, 8], [9, 10], [11, 12], [13, 14])
    found, _ = run(script, rows(0, 2), rules(4, 9, 9, stop_ids=(9,)), 3, 20)
    assert found.steps == ((7, 8), (9, 10), (NO_TOKEN, 12), (NO_TOKEN, 14))
    assert [fed[TOKENS] for fed in script.fed] == [[[100], [101]], [[7], [8]], [[7], [10]], [[7], [12]]]
    assert [fed["write_indices"] for fed in script.fed] == [[3, 20], [4, 21], [5, 22], [5, 23]]


def test_a_rank_ends_with_its_rows() -> None:
    script = Script([7], [8])
    found, _ = run(script, rows(2, 3), rules(9, 5, 5, 2), 3)
    assert found.steps == ((7,), (8,))
    assert len(script.fed) == 2


def test_rows_that_had_ended_before_are_not_run_at_all() -> None:
    found, told = run(script := Script(), rows(0, 1), rules(3, 0, 5), 3)
    assert (found, told, script.fed) == (Decoded(()), [], [])


def test_it_says_why_it_cannot_decide() -> None:
    found, told = run(Script([7, 8], [9, None]), rows(1, 3), rules(9, 5, 5, 5), 3, 4)
    assert found == Decoded(((7, 8),), "the model's output is nan at new token 2 of sequence 2")
    assert told == [(7, 8)]


@pytest.mark.parametrize("second", [[8], [None]])
def test_where_collectives_reach_other_rows_all_steps_are_made(second: list[int | None]) -> None:
    """Its own rows have ended, or have no token; the others wait for it all the same."""
    script = Script([7], second, [50], [51])
    found, told = run(script, rows(0, 1, apart=False), rules(4, 2, 9), 3)
    assert len(script.fed) == 4
    assert (len(found.steps), len(told)) == ((2, 2) if second == [8] else (1, 1))
    assert script.fed[2] == script.fed[3]


def test_a_rank_feeds_the_rows_that_it_is_given_of_those_that_it_decides_on() -> None:
    here = Rows((0, 3), {**dict.fromkeys(INPUTS, (0, 3)), TOKENS: (1, 3), PLACES[0]: (2, 3)}, "values", "ids", True)
    given = inputs(3, 4, 5)
    given[TOKENS], given[PLACES[0]] = given[TOKENS][1:], given[PLACES[0]][2:]
    script = Script([7, 8, 9], [10, 11, 12], [0, 0, 0])
    decode(script, here, given, rules(3, 9, 9, 2), lambda tokens: None)
    assert [fed[TOKENS] for fed in script.fed] == [[[101], [102]], [[8], [9]], [[11], [9]]]
    assert [fed[PLACES[0]] for fed in script.fed] == [[[5]], [[6]], [[7]]]
    assert [fed["write_indices"] for fed in script.fed] == [[3, 4, 5], [4, 5, 6], [5, 6, 7]]


def test_a_step_that_is_refused_ends_the_request_after_the_steps_before() -> None:
    def refusing(given: dict[str, Any]) -> dict[str, Any]:
        if given["write_indices"][0] == 4:
            raise InputError("no")
        return script(given)

    script, told = Script([7], [8]), list[tuple[int, ...]]()
    with pytest.raises(InputError, match="no"):
        decode(refusing, rows(0, 1), inputs(3), rules(5, 9), told.append)
    assert told == [(7,)]
