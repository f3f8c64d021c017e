"""How tokens are cut into calls: widths and cache rows are few, always fit, and nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp.errors import InputError
from unitp.graph.values import TensorType
from unitp.session.decoder import ALL_LOGITS, LAST_LOGITS, Decoder, chunk_width, live_rows, power_of_two


def test_powers_of_two() -> None:
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 512, 513)] == [1, 1, 2, 4, 4, 8, 512, 1024]


@given(st.integers(1, 5000), st.integers(1, 40), st.data())
def test_a_chunk_fits_and_there_are_few_widths(remaining: int, blocks: int, data: st.DataObject) -> None:
    cache = 128 * blocks
    past = data.draw(st.integers(0, cache - 1))
    width = chunk_width(remaining, past, cache)
    assert past + width <= cache
    assert width in {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
    assert width == 1 or width < 2 * remaining or width <= 16


def test_live_rows_are_powers_of_two_up_to_the_cache() -> None:
    assert [live_rows(n, 1920) for n in (1, 128, 129, 1024, 1025, 1920)] == [128, 128, 256, 1024, 1920, 1920]


class Recorder:
    """An executor that keeps a cache as the ranks would, and answers with what each position has seen."""

    def __init__(self, batch: int, cache: int) -> None:
        self.cache = np.full((batch, cache), -1)
        self.widths: list[int] = []

    def execute(self, sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        ids, starts, width = inputs["input_ids"], inputs["write_indices"], sizes["seq"]
        assert ids.shape == (sizes["batch"], width)
        assert inputs["position_ids"].max() < 300
        self.widths.append(width)
        answers = np.zeros((*ids.shape, 1), np.float32)
        for row, start in enumerate(starts):
            assert start + width <= self.cache.shape[1]
            assert inputs["kv_length"][row] == start + width <= sizes["live"]
            self.cache[row, start : start + width] = ids[row]
            for i in range(width):
                answers[row, i] = hash(tuple(self.cache[row, : start + i + 1])) % 9973
        taken = np.take_along_axis(answers, inputs["logits_index"][..., None], axis=1)
        assert taken.shape[1] == sizes["take"]
        return {"logits": taken}


class Vocabulary:
    """As much of a graph as the decoder asks for."""

    def __init__(self) -> None:
        self.nodes = self.parameters = ()
        self.types = {"logits": TensorType("float32", ("batch", "take", 1000))}


def decoder(batch: int, context: int = 256) -> tuple[Decoder, Recorder, list[list[int]]]:
    """A decoder, what carries out its calls, and what the caches hold."""
    cache = -(-context // 128) * 128
    made = Decoder(Vocabulary(), context)  # type: ignore[arg-type]
    return made, Recorder(batch, cache), [[] for _ in range(batch)]


def truth(tokens: list[int]) -> list[int]:
    return [hash(tuple(tokens[: i + 1])) % 9973 for i in range(len(tokens))]


prompts = st.lists(st.lists(st.integers(1, 999), max_size=120), min_size=1, max_size=3)


@given(prompts, st.data())
def test_every_position_sees_exactly_what_came_before_it(rounds: list[list[int]], data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3))
    made, recorder, held = decoder(batch)
    said: list[list[int]] = [[] for _ in range(batch)]
    for turn in rounds[:2]:
        new = [turn[: data.draw(st.integers(0, len(turn)))] for _ in range(batch)]
        rows = made.feed(recorder.execute, held, new, ALL_LOGITS)
        for row, fresh in enumerate(new):
            said[row] += fresh
            expected = truth(said[row])[len(said[row]) - len(fresh) :]
            assert (rows[row]["logits"][:, 0].astype(int).tolist() if fresh else []) == expected
    assert held == said


def test_the_last_position_is_that_of_each_sequence() -> None:
    made, recorder, held = decoder(3)
    new = [[1] * 200, [2, 3], [4] * 31]
    rows = made.feed(recorder.execute, held, new, LAST_LOGITS)
    assert [int(row["logits"][0, 0]) for row in rows] == [truth(tokens)[-1] for tokens in new]
    assert recorder.widths == [256]


def test_padding_is_a_token_of_its_own_sequence() -> None:
    """One of another, say 0, may stand for numbers that are not finite."""
    made, recorder, held = decoder(3)
    made.feed(recorder.execute, held, [[7, 8], [9], []], LAST_LOGITS)
    made.feed(recorder.execute, held, [[], [5, 6], []], LAST_LOGITS)
    assert set(recorder.cache[0]) <= {-1, 7, 8}
    assert set(recorder.cache[1]) <= {-1, 9, 5, 6}


def test_bad_prompts_are_all_told() -> None:
    made, _, _ = decoder(2, context=20)
    with pytest.raises(InputError) as caught:
        made.require([[1] * 21, [], [5, 1000, -3]])
    text = str(caught.value)
    assert "prompt 0: 21 tokens do not fit into a context of 20" in text
    assert "prompt 1: there are no tokens" in text
    assert "prompt 2: token 1000 is not from 0 to 999" in text
