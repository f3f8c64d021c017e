"""What is measured of a subject, in which order, and beside what; and whether it says what the others say."""

from __future__ import annotations

from typing import Any

import pytest
from speed.figures import Key
from speed.limits import KERNEL, MEASURE
from speed.subjects import EVEN_HEADS, LLAMA, Q4_1, TRANSFORMERS, Subject
from speed.took import Took
from speed.turns import BESIDE, DECODE, KERNEL_GAIN, MACHINE, PREFILL, Texts, Turns

NUMPY, LLAMA_2, PEER = Subject("numpy", 2), Subject(LLAMA, threads=2), Subject(TRANSFORMERS)
BITS, EVEN = Subject(LLAMA, weights=Q4_1), Subject(TRANSFORMERS, 2, shape=EVEN_HEADS)


class Probes:
    """Limits that are 10 GB/s more at each probe for one process, and twice that for two."""

    def __init__(self) -> None:
        self.taken = 0

    def probe(self) -> dict[Key, float]:
        self.taken += 1
        return {Key(MEASURE, Subject(KERNEL, n)): 10.0 * n * self.taken for n in (1, 2)}


class Answers:
    """A runner that takes a second for prompts of whatever length, and a tenth for each further token."""

    pids = ()

    def __init__(self, text: str = "text") -> None:
        self.text = text

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Took:
        return Took(self.text, len(prompts), len(prompts[0]), new_tokens, 1.0, 1.0 + (new_tokens - 1) / 10)

    def close(self) -> None:
        """There is nothing to close."""


def turns() -> Turns:
    return Turns(Probes(), [*range(512)])  # type: ignore[arg-type]


def test_speeds_are_those_of_all_prompts_together():
    took = Answers().generate([[1] * 16] * 8, 32)
    assert took.decode_per_s == pytest.approx(80.0)
    assert took.prefill_per_s == 128.0


def test_everybody_decodes_and_those_of_the_first_shape_prefill():
    answers: Any = Answers()
    found = [*turns().of({NUMPY: answers, EVEN: answers}, {})]
    assert [(turn.what, turn.subject) for turn in found] == [
        (MEASURE, MACHINE), (DECODE, NUMPY), (DECODE, EVEN), (PREFILL, NUMPY),
    ]  # fmt: skip
    assert found[3].take() == {Key(PREFILL, NUMPY): 256.0}


def test_the_limit_beside_a_decode_is_the_better_one_of_before_and_after():
    answers: Any = Answers()
    _, first, second, prefill = turns().of({NUMPY: answers, EVEN: answers}, {})
    found = first.take()
    assert found[Key(DECODE, NUMPY)] == pytest.approx(10.0)
    assert found[Key(BESIDE, NUMPY)] == 40.0
    assert found[Key(KERNEL_GAIN, NUMPY)] == pytest.approx(2.0)
    assert second.take()[Key(BESIDE, EVEN)] == 60.0, "what is after one decode is before the next"
    prefill.take()
    assert first.take()[Key(BESIDE, NUMPY)] == 100.0, "a prefill lies between: probes 4 and 5"


def test_two_threads_are_held_against_two_processes():
    answers: Any = Answers()
    _, decode, _ = turns().of({LLAMA_2: answers}, {})
    assert decode.take()[Key(BESIDE, LLAMA_2)] == 40.0


def said(**texts: str) -> Texts:
    found = Texts()
    names = {"numpy": NUMPY, "llama": LLAMA_2, "peer": PEER, "bits": BITS, "even": EVEN}
    for name, text in texts.items():
        found.note(Key(DECODE, names[name]), Answers(text).generate([[1]], 2))
    return found


def test_who_decodes_in_float32_has_to_say_what_transformers_says():
    texts = said(numpy="one", llama="other", peer="one", bits="third", even="fourth")
    assert [texts.same(s) for s in (NUMPY, LLAMA_2, PEER)] == [True, False, True]
    assert texts.same(BITS) is None, "its weights are others"
    assert texts.same(EVEN) is None, "it is alone with its shape"


def test_without_transformers_the_first_one_counts():
    texts = said(llama="one", numpy="one")
    assert texts.same(NUMPY) is True
    assert said(numpy="one").same(NUMPY) is None


def test_what_was_said_first_counts():
    texts = said(numpy="one", peer="one")
    texts.note(Key(DECODE, NUMPY), Answers("changed").generate([[1]], 2))
    assert texts.same(NUMPY) is True
