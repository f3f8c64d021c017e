"""Text comes piece by piece, and stop strings are never seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unitp.session.text_stream import StopStrings, TextGeneration


@pytest.mark.parametrize(
    "pieces,shown,found",
    [
        (["abc", "def"], ["abc", "def"], False),
        (["ab", "<", "end", ">", "no"], ["ab", "", "", ""], True),
        (["ab<", "enormous"], ["ab", "<enormous"], False),
        (["x<e", "n", "<end>y"], ["x", "", "<en"], True),
        (["one STOP two <end>"], ["one "], True),
        (["<<end", ">"], ["<", ""], True),
    ],
)
def test_what_may_be_the_beginning_of_a_stop_string_is_held_back(
    pieces: list[str], shown: list[str], found: bool
) -> None:
    stops = StopStrings(["<end>", "STOP", ""])
    got = []
    for piece in pieces:
        got.append(stops.add(piece))
        if stops.found:
            break
    assert got == shown
    assert stops.found == found


def test_what_is_held_back_comes_at_the_end() -> None:
    stops = StopStrings(["<end>"])
    assert stops.add("a<en") + stops.end() == "a<en"


class Letters:
    """A tokenizer whose tokens are letters' numbers; `!` needs another token to be complete."""

    def stream(self) -> Letters:
        self.held = ""
        return self

    def add(self, token: int) -> str:
        text, self.held = self.held + chr(token), ""
        if text == "!":
            self.held, text = text, ""
        return text

    def end(self) -> str:
        held, self.held = self.held, ""
        return held


def generation(text: str, stop_id: int = 0) -> Any:
    """What the text generation needs of a generation of one prompt."""

    class Fake(SimpleNamespace):
        def __iter__(self) -> Any:
            for place, letter in enumerate(text):
                if self.finish_reasons[0]:
                    return
                self.tokens[0].append(ord(letter))
                if ord(letter) == stop_id:
                    self.finish_reasons[0] = "stop"
                elif place == len(text) - 1:
                    self.finish_reasons[0] = "length"
                yield [ord(letter)]

        def stop(self, sequence: int) -> None:
            self.finish_reasons[sequence] = "stop"

    timing = SimpleNamespace(prefill_tokens_per_s=1.0, decode_tokens_per_s=2.0)
    return Fake(prompts=[[1]], tokens=[[]], finish_reasons=[None], stop_ids=frozenset([stop_id]), timing=timing)


def test_stop_tokens_are_tokens_but_not_text() -> None:
    stream = TextGeneration(generation("ab.", stop_id=ord(".")), Letters())
    assert list(stream) == [(0, "a"), (0, "b")]
    (result,) = stream.results()
    assert (result.text, result.tokens, result.finish_reason) == ("ab", [97, 98, 46], "stop")


def test_a_stop_string_ends_the_generation() -> None:
    stream = TextGeneration(generation("abXYcd"), Letters(), ["XY"])
    list(stream)
    (result,) = stream.results()
    assert (result.text, len(result.tokens), result.finish_reason) == ("ab", 4, "stop")


def test_what_is_unfinished_at_the_end_is_shown() -> None:
    stream = TextGeneration(generation("abX!"), Letters(), ["X!!"])
    list(stream)
    (result,) = stream.results()
    assert (result.text, result.finish_reason) == ("abX!", "length")
