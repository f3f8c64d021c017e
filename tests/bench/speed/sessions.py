"""unitp's subjects: sessions that are open and warm, measured as their user sees them, from the call to each token in the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

import msgspec

import unitp
from speed.subjects import Subject, options_of
from speed.took import Took
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.plugins.spec import BackendSpec
from unitp.program.instructions import AllReduce
from unitp.ranks.processes import marked
from unitp.session.session import Session, TracedCall
from unitp.wire.messages import Trace

CONTEXT, SEQUENCES = 512, 8
CLOCKED = "clocked.engine:connect"
"""An engine that counts the seconds of its runs (`tests/bench/clocked`)."""


class Running:
    """A session of a subject."""

    def __init__(
        self, subject: Subject, model: Model, specs: Mapping[str, BackendSpec], *, clocked: bool = False
    ) -> None:
        """Start it. Raises UnitpError if it cannot run here."""
        plan = unitp.plan(model, Mesh(tp=subject.ranks), weights=subject.weights)
        spec = specs[subject.maker]
        self.spell: Callable[[list[int]], str] = speller(model)
        self.session: Session = unitp.launch(
            model,
            plan,
            msgspec.structs.replace(spec, engine=CLOCKED) if clocked else spec,
            context=CONTEXT,
            sequences=SEQUENCES,
            **options_of(subject),
        )

    @property
    def pids(self) -> list[int]:
        """The processes that compute."""
        return [one.seen.pid for one in marked(self.session.cluster.mark).values() if one.worker]

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Took:
        """Continue prompts greedily."""
        begun = time.perf_counter()
        steps = self.session.generation(prompts, new_tokens, ignore_eos=True)
        next(steps)
        first = time.perf_counter() - begun
        for _ in steps:
            pass
        total = time.perf_counter() - begun
        return Took(self.spell(steps.tokens[0]), len(prompts), len(prompts[0]), new_tokens, first, total)

    def outside(self, prompt: list[int], new_tokens: int) -> float:
        """The part of decoding, 0 to 1, in which the slowest rank is not at a step. The session has to be clocked."""
        steps = self.session.generation([prompt], new_tokens, ignore_eos=True)
        next(steps)
        before, begun = self.session.stats(), time.perf_counter()
        for _ in steps:
            pass
        took, after = time.perf_counter() - begun, self.session.stats()
        return 1 - max(b.collective_s - a.collective_s for a, b in zip(before, after, strict=True)) / took

    def all_reduce_us(self, prompt: list[int], new_tokens: int) -> tuple[str, float]:
        """Microseconds of a small all-reduce within decode steps, of the rank that comes later, and how that is known.

        "seen": both ranks note when it begins and ends. "alone": the framework shows it to nobody inside its functions, and its
        engine says what such collectives take by themselves.
        """
        before = self.session.stats()[0]
        with self.session.tracing() as calls:
            for _ in self.session.generation([prompt], new_tokens, ignore_eos=True):
                pass
        seen = [seconds for call in calls if call.program.phase == "decode" for seconds in later(call)]
        if seen:
            return "seen", median(seen) * 1e6
        after = self.session.stats()[0]
        return "alone", (after.collective_s - before.collective_s) / (after.collectives - before.collectives) * 1e6

    def close(self) -> None:
        self.session.close()


def later(call: TracedCall) -> list[float]:
    """Seconds of each small all-reduce of a call, of the rank that began it last, as far as all ranks note it by itself."""
    alone = [noted_alone(trace) for trace in call.traces]
    found = []
    for number, instruction in enumerate(call.program.instructions):
        if isinstance(instruction, AllReduce) and all(number in one for one in alone):
            begun, ended = max(one[number] for one in alone)
            found.append((ended - begun) / 1e9)
    return found


def noted_alone(trace: Trace) -> dict[int, tuple[int, int]]:
    """When each instruction that is noted by itself began and ended (ns).

    A segment stands under the number of its first instruction, and the next mark is far on. Where a backend calls collectives
    between segments, what is left of the instruction begins a segment, so that its number is noted twice.
    """
    found: dict[int, tuple[int, int]] = {}
    for (number, begun), (following, ended) in pairwise(trace.marks):
        if number <= following <= number + 2:
            found.setdefault(number, (begun, ended))
    return found


def speller(model: Model) -> Callable[[list[int]], str]:
    """Tokens as text; as numbers where the model has no tokenizer."""

    def spell(tokens: list[Any]) -> str:
        stream = model.speller.stream()
        return "".join([*(stream.add(token) for token in tokens), stream.end()])

    return spell
