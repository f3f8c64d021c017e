"""The driver's side of the programs and banks in the ranks. Only the courier calls what is here.

A program is lowered, checked and sent when its sizes (its bucket) first occur. The ranks keep the `PROGRAMS` that were
used last. A program that was dropped is made again when it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from unitp.engine.engine import Array, NotFinite
from unitp.errors import RankError
from unitp.graph.graph import Graph
from unitp.graph.values import held_as
from unitp.layout import Layout
from unitp.plans import Plan
from unitp.program.alike import alike
from unitp.program.check import check
from unitp.program.instructions import Program, encode
from unitp.program.lower import lower
from unitp.program.rows import CANDIDATES
from unitp.ranks.cluster import Cluster
from unitp.session.arrivals import Arrivals, Step
from unitp.session.banks import Bank, Banks
from unitp.session.carried import require_carried
from unitp.session.nearest_phase import choose_phase
from unitp.session.slices import Parts
from unitp.wire import channel as wire
from unitp.wire.messages import (
    Allocate,
    Arrays,
    Check,
    Checked,
    Compile,
    Decode,
    Forget,
    Free,
    Load,
    ParameterPart,
    Reply,
    Reset,
    Rules,
    Run,
    StatePart,
    Trace,
)

PROGRAMS = 64


class TracedCall(NamedTuple):
    """A traced call of a program: when the driver sent it and when all ranks had replied (ns, as in `traces`), and their traces."""

    program: Program
    begun: int
    ended: int
    traces: tuple[Trace, ...]


class Executor:
    """Runs programs of `graph` under `plan` on the ranks of `cluster`. `programs` are those that the ranks have, by number."""

    def __init__(
        self, graph: Graph, plan: Plan, dtype: str, cluster: Cluster, programs: dict[int, Program], banks: Banks
    ) -> None:
        self.graph, self.plan, self.dtype = graph, plan, dtype
        self.cluster, self.programs, self.banks = cluster, programs, banks
        self.preparing_s = 0.0
        self.symbols = sorted({d for state in graph.states for d in state.type.shape if isinstance(d, str)})
        self._parts: dict[tuple[object, ...], Parts] = {}
        self._made = 0
        self._calls: list[TracedCall] | None = None

    def load(self, sizes: Mapping[str, int]) -> None:
        """Have every rank read its slices of the parameters, whose symbolic dims have these sizes."""
        mesh = self.plan.mesh
        messages = {}
        for rank in range(mesh.size):
            parts = []
            for parameter in self.graph.parameters:
                shape = parameter.type.sized(sizes)
                at = self.plan.parameters[parameter.name].bind(shape, mesh).intervals(shape, rank, mesh)
                parts.append(ParameterPart(parameter, at, self._wide(parameter.type.dtype)))
            messages[rank] = Load(tuple(parts))
        self.cluster.exchange(messages)

    def execute(
        self, sizes: Mapping[str, int], outputs: tuple[str, ...], inputs: Mapping[str, Array], bank: Bank | None = None
    ) -> dict[str, Array]:
        """Run the program for these sizes on whole arrays and a bank's states, and return whole outputs by name.

        A new program is prepared first.
        """
        if bank is not None:
            self._ready(bank)
        parts, calls = self.prepare(sizes, outputs), self._calls
        frames = self._frames(parts, inputs, bank, partial(Run, traced=calls is not None))
        begun = time.monotonic_ns()
        replies = self.cluster.exchange(frames)
        if calls is not None:
            traces = [reply.trace for reply in replies.values() if isinstance(reply, Arrays) and reply.trace]
            calls.append(TracedCall(parts.program, begun, time.monotonic_ns(), tuple(traces)))
        return parts.join([self._arrays(rank, replies[rank]) for rank in range(self.plan.mesh.size)])

    def decides(self, sizes: Mapping[str, int], outputs: tuple[str, ...], bank: Bank) -> bool:
        """Whether ranks can go on by themselves after the program for these sizes, which is prepared. Not while calls are traced."""
        if self._calls is not None or outputs != CANDIDATES or sizes["seq"] != 1:
            return False
        self._ready(bank)
        return bool(self.prepare(sizes, outputs).decided)

    def decode(
        self,
        sizes: Mapping[str, int],
        inputs: Mapping[str, Array],
        bank: Bank,
        rules: Rules,
        say: Callable[[Step], None],
    ) -> str:
        """Make steps in the ranks, which decide on tokens by these rules, and `say` each step's tokens as they come.

        `inputs` are those of the first step. Returns why no token of the next step could be chosen, or an empty text. Raises
        InputError as `execute` does, after the steps that were made.
        """
        self._ready(bank)
        parts = self.prepare(sizes, CANDIDATES)
        tellers = {rank: rows.decided for rank, rows in enumerate(parts.decided) if parts.wanted[rank]}
        arrivals = Arrivals(sizes["batch"], tellers, say)
        frames = self._frames(parts, inputs, bank, partial(Decode, rules=rules))
        replies = self.cluster.exchange(frames, arrivals.heard)
        try:
            return arrivals.problem(parts.decided, replies)
        except RankError:
            bank.spoil()
            raise

    def first_not_finite(
        self, sizes: Mapping[str, int], outputs: tuple[str, ...], inputs: Mapping[str, Array], bank: Bank | None = None
    ) -> NotFinite | None:
        """Run like `execute`, but check each instruction: the first whose output is not finite on any rank, or None."""
        if bank is not None:
            self._ready(bank)
        replies = self.cluster.exchange(self._frames(self.prepare(sizes, outputs), inputs, bank, Check))
        found = [reply.found for reply in replies.values() if isinstance(reply, Checked) and reply.found]
        return min(found, key=lambda one: one.instruction, default=None)

    def _frames(
        self, parts: Parts, inputs: Mapping[str, Array], bank: Bank | None, request: Callable[..., Run | Decode | Check]
    ) -> dict[int, object]:
        """The encoded request to each rank, with its slices of the inputs."""
        program, outbox, number = parts.program, self.cluster.outbox, bank.number if bank is not None else 0
        outbox.clear()
        frames: dict[int, object] = {}
        for ranks, cuts in parts.groups:
            part = {
                name: outbox.put(inputs[name][cut].astype(program.values[name].dtype, copy=False))
                for name, cut in cuts.items()
            }
            frames |= dict.fromkeys(ranks, wire.encode(request(parts.key, part, number)))
        return frames

    def _arrays(self, rank: int, reply: Reply) -> dict[str, Array]:
        if not isinstance(reply, Arrays):
            raise RankError(f"rank {rank} answered {type(reply).__name__} instead of arrays")
        return {name: self.cluster.inboxes[rank].get(part) for name, part in reply.arrays.items()}

    @contextmanager
    def tracing(self) -> Iterator[list[TracedCall]]:
        """A context that records every call of a program, with the times of its instructions on every rank."""
        calls: list[TracedCall] = []
        self._calls = calls
        try:
            yield calls
        finally:
            self._calls = None

    # programs

    def prepare(self, sizes: Mapping[str, int], outputs: tuple[str, ...]) -> Parts:
        """The program for these sizes and outputs. A new one is lowered, checked and compiled in every rank."""
        bucket = (*sizes.items(), *outputs)
        parts = self._parts.pop(bucket, None)
        if parts is None:
            begun = time.perf_counter()
            self._make_room()
            parts = self._make(dict(sizes), outputs)
            self.preparing_s += time.perf_counter() - begun
        self._parts[bucket] = parts  # the last is the one that was used last
        return parts

    def _make(self, sizes: dict[str, int], outputs: tuple[str, ...]) -> Parts:
        phase = choose_phase(self.plan, sizes)
        program = lower(self.graph, self.plan, phase, sizes, outputs, self.dtype)
        if outputs == CANDIDATES and sizes["seq"] == 1:
            program = alike(program)
        check(program, self.graph, outputs=outputs)
        require_carried(program, self.cluster.carrier)
        number, self._made = self._made, self._made + 1
        parts = Parts(f"{number}:{phase}", number, program, outputs)
        self.programs[number] = program
        data = encode(program)
        self.cluster.exchange(
            {rank: Compile(parts.key, number, data, wanted) for rank, wanted in enumerate(parts.wanted)}
        )
        return parts

    def _make_room(self) -> None:
        """Drop the least recently used programs while there are too many."""
        while len(self._parts) >= PROGRAMS:
            parts = self._parts.pop(next(iter(self._parts)))
            self._tell(Forget(parts.key))
            del self.programs[parts.number]

    # banks

    def _ready(self, bank: Bank) -> None:
        """Tell the ranks which banks to free, allocate or zero, so that this one is ready for use."""
        if self.banks.doomed:
            doomed, self.banks.doomed = tuple(self.banks.doomed), []
            self._tell(Free(doomed))
        if not bank.made:
            self.cluster.exchange({rank: Allocate(bank.number, self._states(bank, rank)) for rank in self._ranks()})
            bank.made = True
        elif bank.dirty:
            self._tell(Reset(bank.number))
        bank.dirty = False

    def _states(self, bank: Bank, rank: int) -> tuple[StatePart, ...]:
        mesh, made = self.plan.mesh, []
        for state in self.graph.states:
            shape = state.type.sized(bank.sizes)
            layout: Layout = self.plan.states[state.input].bind(shape, mesh)
            made.append(StatePart(state.input, layout.local_shape(shape, rank, mesh), self._wide(state.type.dtype)))
        return tuple(made)

    def _tell(self, message: object) -> None:
        self.cluster.exchange(dict.fromkeys(self._ranks(), message))

    def _ranks(self) -> range:
        return range(self.plan.mesh.size)

    def _wide(self, dtype: str) -> str:
        return held_as(dtype, self.dtype)
