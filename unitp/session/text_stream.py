"""Text of a generation, piece by piece as tokens arrive, until a stop string.

Text that may be the beginning of a stop string is held back until that is decided. A stop string is never shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from unitp.session.generation import Generation


class TokenStream(Protocol):
    """A decoder of tokens: it gives the text that each further token adds (`unitp.frontends.tokenizer.TextStream`)."""

    def add(self, token: int) -> str: ...
    def end(self) -> str: ...


class Tokenizer(Protocol):
    def stream(self) -> TokenStream: ...


class Generated(msgspec.Struct, frozen=True):
    """The result for one prompt. `tokens` include the stop token; `text` includes neither it nor a stop string."""

    prompt_ids: list[int]
    tokens: list[int]
    text: str
    finish_reason: str
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class StopStrings:
    """A filter that finds the first of `strings` in text that comes in pieces."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = [s for s in strings if s]
        self.found = False
        self._held = ""

    def add(self, piece: str) -> str:
        """The text that may be shown after this piece."""
        text = self._held + piece
        places = [(place, s) for s in self.strings if (place := text.find(s)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)[0]]
        keep = max((_overlap(text, s) for s in self.strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """The text that was held back and is not the beginning of a stop string after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """The length of the longest end of `text` that is a proper beginning of `string`."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)


class TextGeneration:
    """An iterator over (sequence, piece of text) of a generation. Afterwards `results()` has the whole."""

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
        """The result for each prompt, as far as it has come."""
        generation, timing = self.generation, self.generation.timing
        return [
            Generated(prompt, tokens, text, reason or "length", timing.prefill_tokens_per_s, timing.decode_tokens_per_s)
            for prompt, tokens, text, reason in zip(
                generation.prompts, generation.tokens, self.texts, generation.finish_reasons, strict=True
            )
        ]
