"""A session: ranks that hold their shards of a model and carry out programs, seen as one object that runs whole arrays.

Programs are lowered, checked and sent when their sizes first occur (their bucket), and kept. A session belongs to one
thread.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.errors import InputError, RankError, did_you_mean
from unitp.graph.graph import Graph
from unitp.layout import Layout
from unitp.plans import Plan
from unitp.plugins.spec import BackendSpec
from unitp.program.check import check
from unitp.program.engine import Array, EngineStats
from unitp.program.instructions import Program, encode
from unitp.program.lower import lower
from unitp.runtime import wire
from unitp.runtime.cluster import Cluster
from unitp.runtime.decoder import ALL_LOGITS, LAST_LOGITS, Decoder, is_decoder, require_prompts
from unitp.runtime.generate import Generation, Tokens
from unitp.runtime.indices import require_places
from unitp.runtime.inputs import bind, token_lists, token_rows
from unitp.runtime.messages import (
    Allocate,
    Answer,
    Arrays,
    Compile,
    Load,
    Measure,
    Measured,
    Memory,
    ParameterPart,
    Probe,
    Reply,
    Reset,
    Run,
    StatePart,
    Trace,
)
from unitp.runtime.parts import Parts
from unitp.runtime.phases import choose_phase
from unitp.runtime.sampling import Sampling


class TracedCall(NamedTuple):
    """A call of a program: when the driver asked and had all answers (nanoseconds, as in `traces`), and a trace per rank."""

    program: Program
    begun: int
    ended: int
    traces: tuple[Trace, ...]


class Session:
    """Made by `unitp.launch`; a context manager. `decoder` drives the caches of a language model (None for other
    graphs).
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        spec: BackendSpec,
        dtype: str,
        cluster: Cluster,
        programs: dict[int, Program],
        context: int,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.graph, self.plan, self.spec, self.dtype = graph, plan, spec, dtype
        self.cluster = cluster
        self.decoder = Decoder(graph, self, context) if is_decoder(graph) else None
        self.stop_ids = frozenset(stop_ids)
        self.context = context
        self._programs = programs
        self._parts: dict[tuple[object, ...], Parts] = {}
        self._compiled: set[str] = set()
        self._allocated: dict[str, int] | None = None
        self._preparing = 0.0
        self._calls: list[TracedCall] | None = None
        self._finalizer = weakref.finalize(self, cluster.close)

    # life

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes of the session. A session that is forgotten is closed when it is collected, or at exit."""
        self._finalizer()

    def load(self) -> None:
        """Have every rank read its slices of the parameters."""
        mesh = self.plan.mesh
        messages = {}
        for rank in range(mesh.size):
            parts = []
            for parameter in self.graph.parameters:
                shape = tuple(int(n) for n in parameter.type.shape)
                at = self.plan.parameters[parameter.name].bind(shape, mesh).intervals(shape, rank, mesh)
                parts.append(ParameterPart(parameter, at, self._wide(parameter.type.dtype)))
            messages[rank] = Load(tuple(parts))
        self.cluster.ask(messages)

    # running

    def run(
        self,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        keep: bool = False,
        last: bool = False,
        **named: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Run the graph on whole arrays, given by input name; returns whole outputs by name.

        A decoder that is given `input_ids` [batch, seq] alone fills in the rest, runs in chunks, and returns
        `{"logits": [batch, seq, vocab]}` (with `last`: [batch, 1, vocab]). States are zeroed first unless `keep`.
        """
        given = {**(inputs or {}), **named}
        if self.decoder is not None and set(given) == {"input_ids"}:
            return self._run_tokens(self.decoder, given["input_ids"], keep, last)
        arrays, sizes = bind(self.graph, given)
        sizes = self._all_sizes(sizes)
        wanted = tuple(outputs if outputs is not None else self.graph.outputs)
        if unknown := [name for name in wanted if name not in self.graph.outputs]:
            raise InputError(
                f'"{unknown[0]}" is no output of {self.graph.name}', hint=did_you_mean(unknown[0], self.graph.outputs)
            )
        require_places(self.graph, wanted, arrays, sizes)
        if not keep:
            self.reset()
        return self.execute(sizes, wanted, arrays)

    def _run_tokens(self, decoder: Decoder, ids: npt.ArrayLike, keep: bool, last: bool) -> dict[str, Array]:
        prompts = token_rows(ids)
        kept = keep and decoder.batch == len(prompts)
        self._require_prompts(decoder, prompts, max(map(len, decoder.held)) if kept else 0)
        if not kept:
            self._begin(decoder, len(prompts))
        rows = decoder.feed(prompts, LAST_LOGITS if last else ALL_LOGITS)
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def generate(
        self,
        ids: Sequence[int] | Sequence[Sequence[int]] | Array,
        max_new_tokens: int = 32,
        *,
        sampling: Sampling | None = None,
        stop_ids: Sequence[int] | None = None,
        ignore_eos: bool = False,
        keep: bool = False,
    ) -> Tokens | Any:
        """Iterate over new tokens of a prompt (ids), or over lists of them for several prompts (None: that one has
        ended).

        `stop_ids` replaces the model's stop tokens; `ignore_eos` means none. With `keep`, what the caches hold of the
        prompts' beginnings is not computed again. The result knows more: see `Generation`.
        """
        prompts, single = token_lists(ids)
        generation = self.generation(
            prompts, max_new_tokens, sampling=sampling, stop_ids=stop_ids, ignore_eos=ignore_eos, keep=keep
        )
        return Tokens(generation) if single else generation

    def generation(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        sampling: Sampling | None = None,
        stop_ids: Sequence[int] | None = None,
        ignore_eos: bool = False,
        keep: bool = False,
    ) -> Generation:
        """As `generate`, for a list of prompts; nothing but a reset of the caches has run when it returns."""
        decoder = self._language_model()
        sampling = sampling or Sampling()
        sampling.require()
        if max_new_tokens < 0:
            raise InputError(f"{max_new_tokens} new tokens cannot be made")
        self._require_prompts(decoder, prompts, 0)
        if keep and decoder.batch == len(prompts):
            decoder.reuse(prompts)
        else:
            self._begin(decoder, len(prompts))
        stops = frozenset() if ignore_eos else frozenset(self.stop_ids if stop_ids is None else stop_ids)
        return Generation(decoder, prompts, max_new_tokens, sampling, stops, lambda: self._preparing)

    def _language_model(self) -> Decoder:
        if self.decoder is None:
            raise InputError(
                f"graph {self.graph.name} does not generate tokens", hint="Language models come from unitp.load."
            )
        return self.decoder

    def _require_prompts(self, decoder: Decoder, prompts: Sequence[Sequence[int]], past: int) -> None:
        decoder.require(prompts, past)
        require_prompts(len(prompts), self.plan.mesh)

    def _begin(self, decoder: Decoder, batch: int) -> None:
        decoder.begin(batch)
        self.reset()

    def reset(self) -> None:
        """Zero all states."""
        if self._allocated is not None:
            self.cluster.ask_all(Reset())

    # programs

    def execute(self, sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
        """Run the program for these sizes on whole arrays, making it first where it is new."""
        parts = self.prepare(sizes, outputs)
        program, outbox = parts.program, self.cluster.outbox
        outbox.clear()
        messages: dict[int, object] = {}
        for ranks, cuts in parts.groups:
            part = {
                name: outbox.put(inputs[name][cut].astype(program.values[name].dtype, copy=False))
                for name, cut in cuts.items()
            }
            messages |= dict.fromkeys(ranks, wire.encode(Run(parts.key, part, self._calls is not None)))
        begun = time.monotonic_ns()
        replies = self.cluster.ask(messages)
        if self._calls is not None:
            traces = [reply.trace for reply in replies.values() if isinstance(reply, Arrays) and reply.trace]
            self._calls.append(TracedCall(program, begun, time.monotonic_ns(), tuple(traces)))
        return parts.join([self._arrays(rank, replies[rank]) for rank in range(self.plan.mesh.size)])

    @contextmanager
    def tracing(self) -> Iterator[list[TracedCall]]:
        """Inside, every call of a program is noted with the times of its instructions on every rank."""
        calls: list[TracedCall] = []
        self._calls = calls
        try:
            yield calls
        finally:
            self._calls = None

    def _arrays(self, rank: int, reply: Reply) -> dict[str, Array]:
        if not isinstance(reply, Arrays):
            raise RankError(f"rank {rank} answered {type(reply).__name__} instead of arrays")
        return {name: self.cluster.inboxes[rank].get(part) for name, part in reply.arrays.items()}

    def prepare(self, sizes: Mapping[str, int], outputs: tuple[str, ...]) -> Parts:
        """The program for these sizes and outputs, lowered, checked and compiled in every rank when it is new."""
        self._allocate(sizes)
        bucket = (*sizes.items(), *outputs)
        parts = self._parts.get(bucket)
        if parts is not None and parts.key in self._compiled:
            return parts
        begun = time.perf_counter()
        if parts is None:
            parts = self._parts[bucket] = self._make(dict(sizes), outputs)
        data = encode(parts.program)
        self.cluster.ask(
            {rank: Compile(parts.key, parts.number, data, wanted) for rank, wanted in enumerate(parts.wanted)}
        )
        self._compiled.add(parts.key)
        self._preparing += time.perf_counter() - begun
        return parts

    def _make(self, sizes: dict[str, int], outputs: tuple[str, ...]) -> Parts:
        phase = choose_phase(self.plan, sizes)
        program = lower(self.graph, self.plan, phase, sizes, outputs, self.dtype)
        check(program, self.graph, outputs=outputs)
        number = len(self._programs)
        self._programs[number] = program
        return Parts(f"{number}:{phase}", number, program, outputs)

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs that were made so far: one for each bucket of sizes that occurred."""
        return tuple(self._programs.values())

    def _allocate(self, sizes: Mapping[str, int]) -> None:
        """Make the states when their sizes change; programs that were compiled for others are compiled anew when
        needed.
        """
        symbols = {d for state in self.graph.states for d in state.type.shape if isinstance(d, str)}
        wanted = {symbol: sizes[symbol] for symbol in symbols}
        if not self.graph.states or wanted == self._allocated:
            return
        mesh = self.plan.mesh
        messages = {}
        for rank in range(mesh.size):
            made = []
            for state in self.graph.states:
                shape = state.type.sized(wanted)
                layout: Layout = self.plan.states[state.input].bind(shape, mesh)
                made.append(StatePart(state.input, layout.local_shape(shape, rank, mesh), self._wide(state.type.dtype)))
            messages[rank] = Allocate(tuple(made))
        self._compiled.clear()
        self._allocated = None  # should the request be interrupted, ranks may have either
        self.cluster.ask(messages)
        self._allocated = wanted

    def _all_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Sizes for all symbols: those of the inputs, the decoder's cache, and for the rest those of the nearest
        phase.
        """
        known = self.plan.phase(choose_phase(self.plan, sizes)).phase.sizes
        caches = {"cache": self.decoder.cache, "live": self.decoder.cache} if self.decoder else {}
        return {symbol: {**known, **caches, **sizes}[symbol] for symbol in self.graph.symbols}

    def _wide(self, dtype: str) -> str:
        return self.dtype if dtype == "float32" else dtype

    # what ranks know

    def probe(self, value: float = 1.0) -> list[float]:
        """The sum of `value` over all ranks, as each rank finds it by the backend's own collectives."""
        return [reply.value for reply in self.cluster.ask_all(Probe(value)) if isinstance(reply, Answer)]

    def stats(self) -> list[EngineStats]:
        """Time in collectives, how many, their bytes and the programs traced, per rank since the start."""
        return [reply.stats for reply in self._measure()]

    def memory(self) -> list[Memory]:
        """Resident bytes per rank: initialised but empty, now, at most."""
        return [reply.memory for reply in self._measure()]

    def _measure(self) -> list[Measured]:
        return [reply for reply in self.cluster.ask_all(Measure()) if isinstance(reply, Measured)]
