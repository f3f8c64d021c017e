"""Token by token: an iterator over what the ranks or the driver choose, which feeds each choice back.

Several generations may be open on one session: each leases rows of its own. What a turn feeds follows from its rows,

    feed(sequence) = (prompt + tokens made)[held:]

so a turn that was interrupted is simply repeated, and no token is lost. A turn makes up to `burst` steps in the ranks, each of
which can be taken as soon as it is made. What was made and not yet taken is not seen in `tokens` and `finish_reasons`; a
generation that ends early leaves it in rows that the next tokens overwrite.

    burst = 1, 2, 4, ... up to `MOST_STEPS`, as long as a turn takes less than `TURN_S`; 1 again if somebody else waits

The timing leaves out the making of programs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from unitp.engine.sampling import Sampling
from unitp.errors import InputError, UnitpError
from unitp.ranks.courier import Abandoned, Courier, Errand
from unitp.session.arrivals import Step
from unitp.session.banks import Bank, Lease
from unitp.session.decoder import LAST_LOGITS, Decoder, Head
from unitp.session.turns import Turn
from unitp.wire.messages import Rules

MOST_STEPS = 16
TURN_S = 0.4
"""How long somebody else waits at most, who stops a generation, closes the session or has another request."""


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


class Clock:
    """The seconds of a turn, without those that were spent on programs."""

    def __init__(self, session: Feeder) -> None:
        self._session, self.total = session, 0.0
        self._begun = self._now()

    def _now(self) -> float:
        return time.perf_counter() - self._session.preparing_s

    def lap(self) -> float:
        """The seconds since the last lap."""
        before, self.total = self.total, self._now() - self._begun
        return self.total - before


class Feeder(Protocol):
    """The part of a session that a generation uses."""

    @property
    def courier(self) -> Courier: ...

    @property
    def preparing_s(self) -> float:
        """Seconds spent on programs so far."""

    def turn(self, errand: Errand[None], turn: Turn, say: Callable[[Step], None]) -> str:
        """Make a turn, on the courier's thread (`unitp.session.turns.Turns.make`)."""

    def not_finite(self, bank: Bank, tokens: Sequence[Sequence[int]], head: Head, where: str) -> Exception:
        """The error that names the first operator whose output is not finite for these tokens. Runs on the courier's thread."""


class Generation:
    """An iterator over steps: each is a list with a token per sequence, or None for a sequence that has ended.

    `tokens` are those taken so far, with the stop token. `finish_reasons` are "stop", "length", or None while a sequence goes
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
        self.timing = Timing()
        self.stop_ids = stop_ids
        self._session, self._lease, self._sampling = session, lease, sampling
        self._limits = [min(max_new_tokens, decoder.context - len(prompt)) for prompt in prompts]
        self._head = _head(sampling, decoder.vocab)
        self._made: list[list[int]] = [[] for _ in prompts]
        self._stopped: list[int | None] = [None] * len(prompts)
        self._steps = self._taken = 0
        self._again: list[list[int | None]] = []
        self._burst = 1
        self._closed = False
        self._turn = threading.RLock()
        self._errand: Errand[None] | None = None
        if None not in self.finish_reasons:
            lease.close()

    @property
    def tokens(self) -> list[list[int]]:
        """The tokens of each sequence that were taken so far."""
        return [self._seen(sequence) for sequence in range(len(self.prompts))]

    @property
    def finish_reasons(self) -> list[str | None]:
        """Why each sequence has ended, as far as that was taken: "stop", "length", or None."""
        return [
            "stop" if stopped is not None else self._reason(sequence, self._seen(sequence))
            for sequence, stopped in enumerate(self._stopped)
        ]

    def __iter__(self) -> Iterator[list[int | None]]:
        return self

    def __next__(self) -> list[int | None]:
        """The next step. After an interruption (Ctrl-C) the next call returns the tokens of the interrupted step.

        After a step is taken, nothing is called, so Python cannot raise for a signal before it is returned.
        """
        courier, step = self._session.courier, None
        try:
            with self._turn:
                if self._settle(courier):
                    if self._again:
                        step, self._again = self._again[0], self._again[1:]
                    else:
                        made, ends = self._step(self._taken), self._lease.closed or self._ends(self._taken + 1)
                        step, self._taken, self._lease.closed = made, self._taken + 1, ends
        except BaseException:
            if step is not None:
                self._again = [step, *self._again]
            raise
        if step is None:
            raise StopIteration
        return step

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def stop(self, sequence: int) -> None:
        """End a sequence from outside, as a stop string does. Its reason is then "stop", even if it was just cut by length."""
        if self._stopped[sequence] is None:
            self._stopped[sequence] = self._taken
        if None not in self.finish_reasons:
            self._lease.close()

    def close(self) -> None:
        """Give the rows back. Further iteration raises InputError, unless all sequences have ended."""
        self._closed = True
        self._lease.close()

    # what was made and what was taken

    def _seen(self, sequence: int, taken: int | None = None) -> list[int]:
        """The tokens of a sequence after so many steps (default: those taken)."""
        stopped, taken = self._stopped[sequence], self._taken if taken is None else taken
        return self._made[sequence][: taken if stopped is None else min(stopped, taken)]

    def _reason(self, sequence: int, tokens: Sequence[int]) -> str | None:
        """Why a sequence has ended with these tokens, if it has."""
        if tokens and tokens[-1] in self.stop_ids:
            return "stop"
        return "length" if len(tokens) >= self._limits[sequence] else None

    def _left(self) -> tuple[int, ...]:
        """How many tokens each sequence may still get after all that were made."""
        left = []
        for sequence, made in enumerate(self._made):
            ended = self._stopped[sequence] is not None or self._reason(sequence, made)
            left.append(0 if ended else self._limits[sequence] - len(made))
        return tuple(left)

    def _ends(self, taken: int) -> bool:
        """Whether all sequences have ended after so many steps."""
        return all(
            self._stopped[sequence] is not None or self._reason(sequence, self._seen(sequence, taken))
            for sequence in range(len(self.prompts))
        )

    def _step(self, number: int) -> list[int | None]:
        """The tokens of a step that was made."""
        seen = [self._seen(sequence, number + 1) for sequence in range(len(self.prompts))]
        return [tokens[number] if len(tokens) > number else None for tokens in seen]

    def _news(self) -> bool:
        """Whether a step was made that nobody has taken."""
        return self._taken < self._steps

    def _settle(self, courier: Courier) -> bool:
        """Make the next step ready, by the turn that is under way or a new one. Returns whether there is a next step.

        A generation that ends by itself ends with its last turn. One that was stopped does not wait for it.
        """
        by_itself = all(stopped is None for stopped in self._stopped)
        while (going_on := None in self.finish_reasons) or self._again or (self._errand is not None and by_itself):
            if going_on and self._closed:
                raise _closed()
            if self._again or (going_on and self._news()):
                return True
            errand = self._errand = self._errand or Errand(self._advance)
            courier.wait(errand, lambda: going_on and self._news())
            if going_on and self._news():
                continue
            try:
                errand.result()
            except Abandoned:
                self._errand = None
                continue
            except UnitpError:
                self._errand = None
                raise
            self._errand = None
        return False

    # by the courier

    def _advance(self, errand: Errand[None]) -> None:
        """Make a turn: feed the missing tokens, and take in the next ones of each sequence that goes on."""
        courier, left = self._session.courier, self._left()
        if not any(left):
            return
        if self._closed:
            raise _closed()
        bank, first, clock = self._lease.bank, self._steps, Clock(self._session)
        rules = Rules(self._burst, first, left, self._sampling, tuple(self.stop_ids))
        feed = self._missing(bank, left)
        fed = sum(map(len, feed))

        def say(tokens: Step) -> None:
            nonlocal fed
            self._note(fed, clock.lap())
            fed = self._take_in(tokens)
            errand.ring()

        problem = self._session.turn(errand, Turn(bank, feed, self._head, rules), say)
        if problem:
            bank.spoil()
            raise self._session.not_finite(bank, self._missing(bank, self._left()), self._head, problem)
        if first > 0:
            self._burst = self._paced(clock.total / (self._steps - first), awaited=courier.awaited)

    def _note(self, fed: int, seconds: float) -> None:
        """Count the tokens fed in a step."""
        if self._steps == 0:
            self.timing.prefill_tokens += fed
            self.timing.prefill_s += seconds
        else:
            self.timing.decode_tokens += fed
            self.timing.decode_s += seconds

    def _take_in(self, tokens: Step) -> int:
        """Add the tokens of a step to those made. Returns how many there are."""
        for made, token in zip(self._made, tokens, strict=True):
            if token is not None:
                made.append(token)
        self._steps += 1
        return len(tokens) - tokens.count(None)

    def _paced(self, seconds: float, *, awaited: bool) -> int:
        """How many steps the next turn may have, if a step takes this long."""
        if awaited:
            return 1
        return max(1, min(2 * self._burst, MOST_STEPS, int(TURN_S / max(seconds, 1e-9))))

    def _missing(self, bank: Bank, left: Sequence[int]) -> list[list[int]]:
        """The tokens that the rows do not hold yet: at least the last one of each sequence that goes on."""
        feed: list[list[int]] = []
        for prompt, made, held, going_on in zip(self.prompts, self._made, bank.held, left, strict=True):
            if not going_on:
                feed.append([])
                continue
            del held[len(prompt) + len(made) - 1 :]
            past = len(held) - len(prompt)
            feed.append(made[past:] if past >= 0 else prompt[past:] + made)
        return feed


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
