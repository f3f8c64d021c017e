"""Token by token: an iterator that asks the ranks for candidates, decides in the driver, and feeds the decision back.

Each step is one request, so a generation that is dropped or interrupted needs no cancelling: the session stays
usable, and the caches hold the tokens that were fed. Programs are prepared outside of what is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from unitp.program.engine import Array
from unitp.runtime.decoder import LAST_LOGITS, Decoder, Head
from unitp.runtime.sampling import Sampling, choose

Clock = Callable[[], float]


class Timing(msgspec.Struct):
    """Tokens fed or made, and the seconds that the ranks and the decision took (lowering and compiling left out)."""

    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prefill_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0


class Generation:
    """Iterates over steps; each gives a token per sequence, or None for a sequence that has ended.

    `tokens`: what was made so far, the stop token included; `finish_reasons`: "stop", "length", or None while it goes
    on.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        stop_ids: frozenset[int],
        preparing: Clock,
    ) -> None:
        self.prompts = [list(prompt) for prompt in prompts]
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.finish_reasons: list[str | None] = [None] * len(prompts)
        self.timing = Timing()
        self._decoder, self._sampling, self._preparing = decoder, sampling, preparing
        self.stop_ids = stop_ids
        self._limits = [min(max_new_tokens, decoder.context - len(prompt)) for prompt in prompts]
        self._head = _head(sampling, decoder.vocab)
        self._steps = self._run()

    def __iter__(self) -> Iterator[list[int | None]]:
        return self

    def __next__(self) -> list[int | None]:
        return next(self._steps)

    def stop(self, sequence: int) -> None:
        """End a sequence from outside, as a stop string does: it counts as stopped, even if it was just cut by
        length.
        """
        self.finish_reasons[sequence] = "stop"

    def _run(self) -> Iterator[list[int | None]]:
        for sequence, limit in enumerate(self._limits):
            if limit == 0:
                self.finish_reasons[sequence] = "length"
        step = 0
        feed = [p[len(held) :] for p, held in zip(self.prompts, self._decoder.held, strict=True)]
        while None in self.finish_reasons:
            yield self._step(feed, step)
            feed = [[made[-1]] if not end else [] for made, end in zip(self.tokens, self.finish_reasons, strict=True)]
            step += 1

    def _step(self, feed: Sequence[Sequence[int]], step: int) -> list[int | None]:
        """Feed tokens and decide on the next of each sequence that goes on."""
        begun, prepared = time.perf_counter(), self._preparing()
        rows = self._decoder.feed(feed, self._head)
        chosen = [None if end else self._choose(rows[i], i, step) for i, end in enumerate(self.finish_reasons)]
        elapsed = time.perf_counter() - begun - (self._preparing() - prepared)
        for sequence, token in enumerate(chosen):
            if token is not None:
                self._take(sequence, token)
        if step == 0:
            self.timing.prefill_tokens += sum(map(len, feed))
            self.timing.prefill_s += elapsed
        else:
            self.timing.decode_tokens += sum(map(len, feed))
            self.timing.decode_s += elapsed
        return chosen

    def _choose(self, row: dict[str, Array], sequence: int, step: int) -> int:
        if self._head is LAST_LOGITS:
            logits = row["logits"][0]
            return choose(logits, np.arange(logits.size), self._sampling, sequence, step)
        return choose(row["top_values"][0], row["top_ids"][0], self._sampling, sequence, step)

    def _take(self, sequence: int, token: int) -> None:
        made = self.tokens[sequence]
        made.append(token)
        if token in self.stop_ids:
            self.finish_reasons[sequence] = "stop"
        elif len(made) >= self._limits[sequence]:
            self.finish_reasons[sequence] = "length"


def _head(sampling: Sampling, vocab: int) -> Head:
    """What has to come back. Where all tokens are candidates, plain logits are cheaper than sorted ones."""
    count = sampling.candidates(vocab)
    return LAST_LOGITS if count == vocab else Head(("top_values", "top_ids"), last=True, candidates=count)


class Tokens:
    """A generation of one prompt, seen as an iterator of plain token ids. What it knows more is in `generation`."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        token = next(self.generation)[0]
        if token is None:
            raise StopIteration
        return token
