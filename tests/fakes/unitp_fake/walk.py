"""Random walks over everything that can be done with a session at once, against what is known to be right.

A walk has several generations open, runs between their steps, keeps, drops and interrupts; `Walk` checks every token and
every kept state against `right(ids)`, the logits [vocab] after these ids.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unitp.engine.sampling import Sampling, choose
from unitp.errors import InputError
from unitp.session.generation import Generation
from unitp.session.session import Session

Logits = npt.NDArray[Any]


class Interrupted(BaseException):
    """As Ctrl-C, or a time limit of the user's."""


class Open:
    """A generation, and what it has to say."""

    def __init__(self, generation: Generation, sampling: Sampling, new: int) -> None:
        self.generation, self.sampling, self.new = generation, sampling, new
        self.made: list[list[int]] = [[] for _ in generation.prompts]


class Walk:
    """`right(ids)`: the logits after these ids; `alike(a, b)`: whether two rows of logits are the same.

    `interrupt` runs something and interrupts it at a random moment; returns whether it was.
    """

    def __init__(
        self,
        session: Session,
        right: Callable[[Sequence[int]], Logits],
        choice: random.Random,
        interrupt: Callable[[Callable[[], object]], bool],
        prompts: Sequence[Sequence[int]],
        atol: float = 0.0,
    ) -> None:
        self.session, self.right, self.choice, self.interrupt = session, right, choice, interrupt
        self.prompts, self.atol = prompts, atol
        self.open: list[Open] = []
        self.ran: list[list[int]] | None = None

    # what can be done

    def step(self) -> None:
        """One step of a generation."""
        if self.open:
            self.advance(self.choice.choice(self.open))

    def begin(self) -> None:
        """Open a generation, if there are rows for it; one more is refused."""
        count = self.choice.choice((1, 1, 1, 2, 3))
        prompts = [list(self.choice.choice(self.prompts)) for _ in range(count)]
        sampling = self.choice.choice(SAMPLINGS)
        new, keep = self.choice.choice((0, 1, 2, 5, 9, 24)), self.choice.random() < 0.3
        if count <= self.free:
            made = self.session.generation(prompts, new, sampling=sampling, ignore_eos=True, keep=keep)
            if new:
                self.open.append(Open(made, sampling, new))
        else:
            with pytest.raises(InputError, match="of the caches, and the session has"):
                self.session.generation(prompts, new, keep=keep)

    def drop(self) -> None:
        """Forget a generation, or close it; a closed one says so."""
        if not self.open:
            return
        one = self.open.pop(self.choice.randrange(len(self.open)))
        if self.choice.random() < 0.5:
            one.generation.close()
            with pytest.raises(InputError, match="was closed"):
                next(one.generation)

    def run(self) -> None:
        """A run of its own, or one that goes on from the last."""
        if not self.free:
            return
        keep = self.ran is not None and self.choice.random() < 0.5
        ids = [list(self.choice.choice(self.prompts)) for _ in range(len(self.ran or ()) if keep else 1)]
        ids = [row[: min(map(len, ids))] for row in ids]
        past = self.ran if keep and self.ran is not None else [[] for _ in ids]
        if max(map(len, past)) + len(ids[0]) > self.session.context:
            return
        try:
            logits = self.session.run(input_ids=ids, keep=keep)["logits"]
        except InputError as problem:  # its rows may have gone to others
            if not keep or "were needed for other sequences" not in str(problem):
                raise
            self.ran = None
            return
        self.ran = [old + new for old, new in zip(past, ids, strict=True)]
        for row, (new, whole) in enumerate(zip(ids, self.ran, strict=True)):
            for place in range(len(new)):
                self.same(logits[row, place], self.right(whole[: len(whole) - len(new) + place + 1]))

    def interrupted_step(self) -> None:
        """An interruption in the middle of a step loses nothing."""
        if self.open:
            one = self.choice.choice(self.open)
            found: list[list[int | None]] = []

            def work() -> None:
                for made in one.generation:
                    found.append(made)
                    return

            self.interrupt(work)
            for made in found:
                self.took(one, made)

    def interrupted_run(self) -> None:
        """An interrupted run leaves nothing to keep, and nothing changed elsewhere."""
        if self.free:
            prompt = list(self.choice.choice(self.prompts))
            self.interrupt(lambda: self.session.run(input_ids=[prompt]))
            self.session.reset()
            self.ran = None

    STEPS = (step, step, step, step, step, step, begin, begin, drop, run, run, interrupted_step, interrupted_run)

    def go(self, steps: int) -> None:
        """A walk of so many steps; at its end all generations are right to their last token."""
        for _ in range(steps):
            self.choice.choice(self.STEPS)(self)
        while self.open:
            self.advance(self.open[0])

    # what is right

    @property
    def free(self) -> int:
        going_on = [one.generation for one in self.open if None in one.generation.finish_reasons]
        return self.session.sequences - sum(len(generation.prompts) for generation in going_on)

    def advance(self, one: Open) -> None:
        self.took(one, next(one.generation))

    def took(self, one: Open, made: Sequence[int | None]) -> None:
        """Check a step's tokens."""
        step = len(one.made[0])
        for sequence, token in enumerate(made):
            prompt, before = one.generation.prompts[sequence], one.made[sequence]
            logits = self.right([*prompt, *before])
            wanted = choose(logits, np.arange(logits.size), one.sampling, sequence, step)
            assert token == wanted, f"sequence {sequence}, new token {step} after {prompt + before}"
            before.append(wanted)
        if step + 1 == one.new:
            with pytest.raises(StopIteration):
                next(one.generation)
            self.open.remove(one)

    def same(self, found: Logits, right: Logits) -> None:
        np.testing.assert_allclose(found, right, rtol=0, atol=self.atol)


SAMPLINGS = (
    Sampling(),
    Sampling(),
    Sampling(temperature=0.8, top_k=5, seed=3),
    Sampling(temperature=1.3, top_k=12, top_p=0.9, seed=4),
    Sampling(temperature=0.7, seed=5),
)


def by_timer(choice: random.Random, most_s: float) -> Callable[[Callable[[], object]], bool]:
    """Interrupt by a signal after a random time."""

    def interrupt(work: Callable[[], object]) -> bool:
        with armed() as alarm:
            try:
                signal.setitimer(signal.ITIMER_REAL, choice.uniform(1e-6, most_s))
                work()
                alarm.off = True
            except Interrupted:
                return True
        return False

    return interrupt


class Alarm:
    """A handler that interrupts once, and not when the work is over (`off`)."""

    off = False

    def __call__(self, number: int, frame: object) -> None:
        if not self.off:
            self.off = True
            raise Interrupted


@contextmanager
def armed() -> Iterator[Alarm]:
    """Meanwhile SIGALRM interrupts."""
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        yield alarm
    finally:
        alarm.off = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
