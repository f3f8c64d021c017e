"""Text as it is made: tokens of a generation turned into text piece by piece, ended by stop strings.

Text that could be the beginning of a stop string is held back until it is known not to be; a stop string itself is
never shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from unitp.session.generation import Generation


class TokenStream(Protocol):
    """The text that each further token adds (`unitp.frontends.tokenizer.TextStream`)."""

    def add(self, token: int) -> str: ...
    def end(self) -> str: ...


class Tokenizer(Protocol):
    def stream(self) -> TokenStream: ...


class Generated(msgspec.Struct, frozen=True):
    """What was made of one prompt. `tokens` holds the stop token, `text` neither it nor a stop string."""

    prompt_ids: list[int]
    tokens: list[int]
    text: str
    finish_reason: str
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class StopStrings:
    """Finds the first of `strings` in text that comes in pieces."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = [s for s in strings if s]
        self.found = False
        self._held = ""

    def add(self, piece: str) -> str:
        """The text that may be shown now."""
        text = self._held + piece
        places = [(place, s) for s in self.strings if (place := text.find(s)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)[0]]
        keep = max((_overlap(text, s) for s in self.strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """How long the longest end of `text` is that is a true beginning of `string`."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)


class TextGeneration:
    """Iterates over (sequence, piece of text) of a generation; `results()` when it is through."""

    def __init__(self, generation: Generation, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.generation = generation
        self.texts = [""] * len(generation.prompts)
        self._streams = [tokenizer.stream() for _ in generation.prompts]
        self._stops = [StopStrings(stop) for _ in generation.prompts]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for tokens in self.generation:
            for sequence, token in enumerate(tokens):
                if token is not None and (piece := self._add(sequence, token)):
                    yield sequence, piece

    def _add(self, sequence: int, token: int) -> str:
        """The text that may be shown after this token."""
        stream, stops = self._streams[sequence], self._stops[sequence]
        piece = "" if token in self.generation.stop_ids else stops.add(stream.add(token))
        if stops.found:
            self.generation.stop(sequence)
        elif self.generation.finish_reasons[sequence] is not None:
            rest = stops.add(stream.end())
            if stops.found:
                self.generation.stop(sequence)
            piece += rest + stops.end()
        self.texts[sequence] += piece
        return piece

    def results(self) -> list[Generated]:
        """What was made of each prompt so far."""
        generation, timing = self.generation, self.generation.timing
        return [
            Generated(prompt, tokens, text, reason or "length", timing.prefill_tokens_per_s, timing.decode_tokens_per_s)
            for prompt, tokens, text, reason in zip(
                generation.prompts, generation.tokens, self.texts, generation.finish_reasons, strict=True
            )
        ]
