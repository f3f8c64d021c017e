"""Token by token: an iterator that gets candidates from the ranks, chooses in the driver, and feeds the choice back.

Several generations may be open on one session: each leases rows of its own. What a step feeds follows from its rows,

    feed(sequence) = (prompt + tokens made)[held:]

so a step that was interrupted is simply repeated, and no token is lost. The timing leaves out the making of programs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from unitp.engine.engine import Array
from unitp.engine.sampling import NotFinite, Sampling, choose
from unitp.errors import InputError, UnitpError
from unitp.ranks.courier import Abandoned, Courier, Errand
from unitp.session.banks import Bank, Lease
from unitp.session.decoder import LAST_LOGITS, Decoder, Head


class Timing(msgspec.Struct):
    """Tokens fed or made, and the seconds that ranks and choices took, without lowering and compiling."""

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


class Step(NamedTuple):
    """One token per sequence (None for one that has ended), or the end of the generation."""

    tokens: list[int | None]
    ended: bool


class Feeder(Protocol):
    """The part of a session that a generation uses."""

    @property
    def courier(self) -> Courier: ...

    @property
    def preparing_s(self) -> float:
        """Seconds spent on programs so far."""

    def feed(
        self, errand: Errand[Step], bank: Bank, tokens: Sequence[Sequence[int]], head: Head
    ) -> list[dict[str, Array]]:
        """Feed tokens to a bank's rows, on the courier's thread. Raises Abandoned between two calls if nobody waits any more."""

    def not_finite(self, bank: Bank, tokens: Sequence[Sequence[int]], head: Head, where: str) -> Exception:
        """The error that names the first operator whose output is not finite for these tokens. Runs on the courier's thread."""


class Generation:
    """An iterator over steps: each is a list with a token per sequence, or None for a sequence that has ended.

    `tokens` are those made so far, with the stop token. `finish_reasons` are "stop", "length", or None while a sequence goes
    on. The rows are free again when the generation has ended, is closed or dropped. Several threads may use it.
    """

    def __init__(
        self,
        session: Feeder,
        decoder: Decoder,
        lease: Lease,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        stop_ids: frozenset[int],
    ) -> None:
        self.prompts = [list(prompt) for prompt in prompts]
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.finish_reasons: list[str | None] = [None] * len(prompts)
        self.timing = Timing()
        self.stop_ids = stop_ids
        self._session, self._lease, self._sampling = session, lease, sampling
        self._limits = [min(max_new_tokens, decoder.context - len(prompt)) for prompt in prompts]
        self._head = _head(sampling, decoder.vocab)
        self._steps = 0
        self._closed = False
        self._turn = threading.RLock()
        self._step: Errand[Step] | None = None
        self._ready: list[Step] = []
        for sequence, limit in enumerate(self._limits):
            if limit == 0:
                self.finish_reasons[sequence] = "length"
        if None not in self.finish_reasons:
            lease.close()

    def __iter__(self) -> Iterator[list[int | None]]:
        return self

    def __next__(self) -> list[int | None]:
        """The next step. After an interruption (Ctrl-C) the next call returns the tokens of the interrupted step.

        After the tokens are taken, nothing is called, so Python cannot raise for a signal before they are returned.
        """
        courier, made = self._session.courier, None
        try:
            with self._turn:
                self._settle(courier)
                made, self._ready = self._ready[0], self._ready[1:]
        except BaseException:
            if made is not None:
                self._ready = [made, *self._ready]
            raise
        if made.ended:
            raise StopIteration
        return made.tokens

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def stop(self, sequence: int) -> None:
        """End a sequence from outside, as a stop string does. Its reason is then "stop", even if it was just cut by length."""
        self.finish_reasons[sequence] = "stop"
        if None not in self.finish_reasons:
            self._lease.close()

    def close(self) -> None:
        """Give the rows back. Further iteration raises InputError, unless all sequences have ended."""
        self._closed = True
        self._lease.close()

    def _settle(self, courier: Courier) -> None:
        """Make the next step ready: finish the step that was interrupted, or run a new one."""
        while not self._ready:
            if self._closed and (self._step is not None or None in self.finish_reasons):
                raise _closed()
            step = self._step = self._step or Errand(self._advance)
            courier.wait(step)
            try:
                made = step.result()
            except Abandoned:
                self._step = None
                continue
            except UnitpError:
                self._step = None
                raise
            self._ready = [*self._ready, made]
            self._step = None

    # by the courier

    def _advance(self, errand: Errand[Step]) -> Step:
        """Feed the missing tokens, and choose the next token of each sequence that goes on."""
        if None not in self.finish_reasons:
            self._lease.close()
            return Step([], ended=True)
        if self._closed:
            raise _closed()
        bank, begun, prepared = self._lease.bank, time.perf_counter(), self._session.preparing_s
        feed = self._missing(bank)
        rows = self._session.feed(errand, bank, feed, self._head)
        try:
            chosen = [None if end else self._choose(rows[i], i) for i, end in enumerate(self.finish_reasons)]
        except NotFinite as problem:
            bank.spoil()
            raise self._session.not_finite(bank, self._missing(bank), self._head, str(problem)) from None
        elapsed = time.perf_counter() - begun - (self._session.preparing_s - prepared)
        for sequence, token in enumerate(chosen):
            if token is not None:
                self._take(sequence, token)
        if self._steps == 0:
            self.timing.prefill_tokens += sum(map(len, feed))
            self.timing.prefill_s += elapsed
        else:
            self.timing.decode_tokens += sum(map(len, feed))
            self.timing.decode_s += elapsed
        self._steps += 1
        if None not in self.finish_reasons:
            self._lease.close()
        return Step(chosen, ended=False)

    def _missing(self, bank: Bank) -> list[list[int]]:
        """The tokens that the rows do not hold yet: at least the last one of each sequence that goes on."""
        feed: list[list[int]] = []
        for prompt, made, held, end in zip(self.prompts, self.tokens, bank.held, self.finish_reasons, strict=True):
            if end:
                feed.append([])
                continue
            del held[len(prompt) + len(made) - 1 :]
            past = len(held) - len(prompt)
            feed.append(made[past:] if past >= 0 else prompt[past:] + made)
        return feed

    def _choose(self, row: dict[str, Array], sequence: int) -> int:
        if self._head is LAST_LOGITS:
            values, ids = row["logits"][0], np.arange(row["logits"].shape[-1])
        else:
            values, ids = row["top_values"][0], row["top_ids"][0]
        return choose(values, ids, self._sampling, sequence, self._steps)

    def _take(self, sequence: int, token: int) -> None:
        made = self.tokens[sequence]
        made.append(token)
        if token in self.stop_ids:
            self.finish_reasons[sequence] = "stop"
        elif len(made) >= self._limits[sequence]:
            self.finish_reasons[sequence] = "length"


def _closed() -> InputError:
    return InputError("the generation was closed before it ended", hint="Begin another: session.generate(...).")


def _head(sampling: Sampling, vocab: int) -> Head:
    """The outputs that a step needs. If all tokens are candidates, plain logits are cheaper than sorted ones."""
    count = sampling.candidates(vocab)
    return LAST_LOGITS if count == vocab else Head(("top_values", "top_ids"), last=True, candidates=count)


class Tokens:
    """An iterator over the token ids of a generation with one prompt. `generation` is that generation."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        for step in self.generation:  # unlike next(), a loop cannot be interrupted between a step and its name
            if step[0] is not None:
                return step[0]
        raise StopIteration

    def __enter__(self) -> Tokens:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the row back, as `Generation.close` does."""
        self.generation.close()
