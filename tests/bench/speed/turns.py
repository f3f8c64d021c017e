"""What is measured of each subject.

decode        tokens per second after the first: 32 tokens after a prompt of 16
decode of 8   the same for 8 prompts at once, all their tokens together
prefill       tokens of a prompt of 256 per second, until the first token is there
limit         what the machine can do (`limits`), once a round, by each way
beside        the same right before and after a decode: by the best way, with as many processes
kernel gain   how much faster two processes were than one with the bare kernel, right before and after a decode
driver        percent of decoding in which no rank is at a step
all-reduce    microseconds of a small one within decode steps, on the rank that comes later
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from speed.figures import Key
from speed.limits import MEASURE, Limits, faster, gain
from speed.rounds import Turn
from speed.sessions import Running
from speed.subjects import EVEN_HEADS, FLOAT32, TRANSFORMERS, Subject
from speed.took import Took

DECODE, DECODE_8, PREFILL, BESIDE, KERNEL_GAIN = "decode", "decode of 8", "prefill", "beside", "kernel gain"
DRIVER, ALL_REDUCE, ALL_REDUCE_ALONE = "driver", "all-reduce", "all-reduce alone"
UNITS = {
    DECODE: "tokens/s",
    DECODE_8: "tokens/s",
    PREFILL: "tokens/s",
    BESIDE: "GB/s",
    KERNEL_GAIN: "times",
    MEASURE: "GB/s",
    DRIVER: "%",
    ALL_REDUCE: "us",
    ALL_REDUCE_ALONE: "us",
}
MACHINE = Subject("machine")
PROMPT, LONG_PROMPT, NEW_TOKENS, TRACED_TOKENS, MANY = 16, 256, 32, 8, 8


class Runner(Protocol):
    """A session or a peer."""

    @property
    def pids(self) -> list[int]: ...

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Took: ...

    def close(self) -> None: ...


class Texts:
    """What each subject said first in each measure: who is fast has to say the same."""

    def __init__(self) -> None:
        self._said: dict[Key, str] = {}

    def note(self, key: Key, took: Took) -> Took:
        self._said.setdefault(key, took.text)
        return took

    def same(self, subject: Subject) -> bool | None:
        """Whether a subject decodes to what `transformers` does, or else the first one, in its shape.

        None for one that is alone, or whose weights are others.
        """
        said = {k.subject: text for k, text in self._said.items() if k.measure == DECODE}
        peers = [s for s in said if s.shape == subject.shape and s.weights == FLOAT32]
        if subject not in peers or len(peers) < 2:
            return None
        first = next((s for s in peers if s.maker == TRANSFORMERS), peers[0])
        return said[subject] == said[first]


class Turns:
    """The turns of all runners, with one probe of the machine's limit between two decodes."""

    def __init__(self, limits: Limits, ids: list[int]) -> None:
        self.texts, self._limits, self._ids = Texts(), limits, ids
        self._before: dict[Key, float] | None = None

    def of(self, runners: Mapping[Subject, Runner], clocked: Mapping[Subject, Running]) -> Iterator[Turn]:
        """All turns of a round, decodes side by side."""
        yield Turn(MEASURE, MACHINE, self._limits.probe)
        for subject, runner in runners.items():
            yield Turn(DECODE, subject, self._decode(subject, runner))
        for subject, runner in runners.items():
            if not subject.shape:
                yield Turn(PREFILL, subject, self._prefill(subject, runner))
        for subject, runner in runners.items():
            if isinstance(runner, Running) and subject.maker == "numpy" and subject.weights == FLOAT32:
                yield Turn(DECODE_8, subject, self._decode_many(subject, runner))
        for subject, runner in runners.items():
            if isinstance(runner, Running) and subject.ranks > 1 and subject.shape != EVEN_HEADS:
                yield Turn(ALL_REDUCE, subject, self._all_reduce(subject, runner))
        for subject, session in clocked.items():
            yield Turn(DRIVER, subject, self._driver(subject, session))

    def _decode(self, subject: Subject, runner: Runner) -> Callable[[], dict[Key, float]]:
        key = Key(DECODE, subject)

        def take() -> dict[Key, float]:
            before = self._before or self._limits.probe()
            took = self.texts.note(key, runner.generate([self._ids[:PROMPT]], NEW_TOKENS))
            after = self._before = self._limits.probe()
            processes = min(2, max(subject.ranks, subject.threads))
            beside = {Key(BESIDE, subject): faster(before, after, processes=processes)}
            if found := gain(before, after):
                beside[Key(KERNEL_GAIN, subject)] = found
            return {key: took.decode_per_s, **beside}

        return take

    def _prefill(self, subject: Subject, runner: Runner) -> Callable[[], dict[Key, float]]:
        key = Key(PREFILL, subject)

        def take() -> dict[Key, float]:
            self._before = None
            return {key: self.texts.note(key, runner.generate([self._ids[:LONG_PROMPT]], 2)).prefill_per_s}

        return take

    def _decode_many(self, subject: Subject, runner: Runner) -> Callable[[], dict[Key, float]]:
        prompts = [self._ids[n : n + PROMPT] for n in range(MANY)]

        def take() -> dict[Key, float]:
            self._before = None
            return {Key(DECODE_8, subject): runner.generate(prompts, NEW_TOKENS).decode_per_s}

        return take

    def _all_reduce(self, subject: Subject, session: Running) -> Callable[[], dict[Key, float]]:
        def take() -> dict[Key, float]:
            self._before = None
            how, us = session.all_reduce_us(self._ids[:PROMPT], TRACED_TOKENS)
            return {Key(ALL_REDUCE if how == "seen" else ALL_REDUCE_ALONE, subject): us}

        return take

    def _driver(self, subject: Subject, session: Running) -> Callable[[], dict[Key, float]]:
        def take() -> dict[Key, float]:
            self._before = None
            return {Key(DRIVER, subject): 100 * session.outside(self._ids[:PROMPT], NEW_TOKENS)}

        return take
