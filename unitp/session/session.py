"""A session: ranks that hold their shards of a model and run programs, as one object that runs whole arrays.

One thread, the courier, does everything with the ranks, one thing after the other. So several threads may use a session,
and an interruption (Ctrl-C, a time limit) leaves it and all open generations intact. Each generation has cache rows of
its own, and so has the last `run`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unitp.engine.engine import Array, EngineStats, NotFinite
from unitp.engine.sampling import Sampling
from unitp.errors import InputError, RankError, UnitpError, did_you_mean
from unitp.graph.graph import Graph
from unitp.plans import Plan
from unitp.plugins.spec import BackendSpec
from unitp.program.instructions import Program
from unitp.ranks.cluster import Cluster
from unitp.ranks.courier import Courier, Errand
from unitp.session.arrivals import Step
from unitp.session.banks import Bank, Banks, LastRun
from unitp.session.decoder import ALL_LOGITS, LAST_LOGITS, Decoder, Execute, Head, is_decoder, require_prompts
from unitp.session.executor import Executor, TracedCall
from unitp.session.generation import Generation, Tokens
from unitp.session.indices import require_places
from unitp.session.inputs import bind, token_lists, token_rows
from unitp.session.nearest_phase import choose_phase
from unitp.session.turns import Turn, Turns
from unitp.wire.messages import Answer, Measure, Measured, Memory, Probe

__all__ = ["Session", "TracedCall"]

Made = TypeVar("Made")


class Session:
    """The handle on running ranks, made by `unitp.launch`. Use it as a context manager.

    `decoder` has the sizes of a language model's caches (None for other graphs). `sequences` is how many may be open at once.
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
        sequences: int,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.graph, self.plan, self.spec, self.dtype = graph, plan, spec, dtype
        self.cluster = cluster
        self.decoder = Decoder(graph, context) if is_decoder(graph) else None
        self.stop_ids = frozenset(stop_ids)
        self.context, self.sequences = context, sequences
        self._banks = Banks(sequences if self.decoder else 1)
        self.executor = Executor(graph, plan, dtype, cluster, programs, self._banks)
        self._last = LastRun(self._banks)
        self._finalizer = weakref.finalize(self, cluster.close)

    # life

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes of the session. If the session is garbage-collected, or at exit, this happens by itself."""
        self.cluster.close()
        self._finalizer.detach()

    def load(self) -> None:
        """Have every rank read its slices of the parameters."""
        sizes = {"cache": self.decoder.cache} if self.decoder else {}
        self.cluster.do(lambda _: self.executor.load(sizes))

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
        """Run the graph on whole arrays by input name, and return whole outputs by name.

        A decoder that is given `input_ids` [batch, seq] alone fills in the rest, runs in chunks, and returns
        `{"logits": [batch, seq, vocab]}` (with `last`: [batch, 1, vocab]). States start at zero. With `keep` they start as the
        last `run` (not a generation) left them. Raises InputError for arrays that do not fit, and if nothing is left to keep.
        """
        given = {**(inputs or {}), **named}
        if self.decoder is not None and set(given) == {"input_ids"}:
            return self._run_tokens(self.decoder, given["input_ids"], keep, last)
        arrays, sizes = bind(self.graph, given)
        sizes = self._all_sizes(sizes)
        wanted = tuple(outputs if outputs is not None else self.graph.outputs)
        if unknown := [name for name in wanted if name not in self.graph.outputs]:
            raise InputError(
                f'"{unknown[0]}" is not an output of {self.graph.name}',
                hint=did_you_mean(unknown[0], self.graph.outputs),
            )
        require_places(self.graph, wanted, arrays, sizes)
        return self._do_run(lambda _: self._run(sizes, wanted, arrays, keep))

    def _run(
        self, sizes: dict[str, int], outputs: tuple[str, ...], arrays: dict[str, Array], keep: bool
    ) -> dict[str, Array]:
        if not self.graph.states:
            return self.executor.execute(sizes, outputs, arrays)
        kept = {symbol: sizes[symbol] for symbol in self.executor.symbols}
        with self._last.states(kept, sizes["batch"] if self.decoder else 1, keep) as bank:
            return self.executor.execute(sizes, outputs, arrays, bank)

    def _run_tokens(self, decoder: Decoder, ids: npt.ArrayLike, keep: bool, last: bool) -> dict[str, Array]:
        prompts = token_rows(ids)
        self._require_prompts(decoder, prompts)

        head = LAST_LOGITS if last else ALL_LOGITS

        def work(errand: Errand[list[dict[str, Array]]]) -> list[dict[str, Array]]:
            sizes = {"batch": len(prompts), "cache": decoder.cache}
            self._require_prompts(decoder, prompts, self._last.length if keep else 0)
            with self._last.states(sizes, len(prompts), keep, by_tokens=True) as bank:
                return decoder.feed(self._on(bank, errand), bank.held, prompts, head)

        rows = self._do_run(work)
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _do_run(self, work: Callable[[Errand[Made]], Made]) -> Made:
        """Run on the courier's thread. A run that was interrupted may still finish, but nobody sees its result."""
        try:
            return self.cluster.do(work)
        except UnitpError:
            raise
        except BaseException:
            with suppress(UnitpError):  # it is closed, and there will be no other run
                self.courier.post(lambda _: self._last.forget("the last run was interrupted"))
            raise

    def reset(self) -> None:
        """Forget the states that the last run left, so that the next one starts at zero."""
        self.cluster.do(lambda _: self._last.forget())

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
        """Iterate over new tokens of a prompt (ids), or over lists of them for several prompts (None for one that has ended).

        `stop_ids` replaces the model's stop tokens; `ignore_eos` means none. With `keep`, beginnings of the prompts that are
        still in the caches from an ended generation are not computed again. Several generations may be open at once. The result
        has more information: see `Generation`. Raises InputError for bad prompts, and if the session has too few free rows.
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
        """Return a generation like that of `generate`, for a list of prompts. It has its rows of the caches; nothing has run yet.

        Raises InputError if the graph does not generate tokens, and for prompts, sampling or a number of tokens that cannot be.
        """
        if self.decoder is None:
            raise InputError(
                f"graph {self.graph.name} does not generate tokens", hint="Language models come from unitp.load."
            )
        decoder, sampling = self.decoder, sampling or Sampling()
        sampling.require()
        if max_new_tokens < 0:
            raise InputError(f"{max_new_tokens} new tokens cannot be made")
        self._require_prompts(decoder, prompts)
        sizes = {"batch": len(prompts), "cache": decoder.cache}
        begin = [list(prompt) for prompt in prompts] if keep else []
        lease = self.cluster.do(lambda _: self._banks.lease(sizes, len(prompts), begin))
        stops = frozenset() if ignore_eos else frozenset(self.stop_ids if stop_ids is None else stop_ids)
        return Generation(self, decoder, lease, prompts, max_new_tokens, sampling, stops)

    def _require_prompts(self, decoder: Decoder, prompts: Sequence[Sequence[int]], past: int = 0) -> None:
        decoder.require(prompts, past)
        require_prompts(len(prompts), self.plan.mesh)

    def execute(
        self, sizes: Mapping[str, int], outputs: tuple[str, ...], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Run the program of a graph without states for these sizes, on whole arrays without conversion."""
        return self.cluster.do(lambda _: self.executor.execute(sizes, outputs, inputs))

    def _all_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Sizes of all symbols: from the inputs, the decoder's cache, and otherwise from the nearest phase."""
        known = self.plan.phase(choose_phase(self.plan, sizes)).phase.sizes
        caches = {"cache": self.decoder.cache, "live": self.decoder.cache} if self.decoder else {}
        return {symbol: {**known, **caches, **sizes}[symbol] for symbol in self.graph.symbols}

    # what generations need

    @property
    def courier(self) -> Courier:
        """The thread that does everything with the ranks. Raises RankError if the session is closed."""
        return self.cluster.courier

    @property
    def preparing_s(self) -> float:
        """Seconds spent on lowering and compiling so far."""
        return self.executor.preparing_s

    def turn(self, errand: Errand[Any], turn: Turn, say: Callable[[Step], None]) -> str:
        """Make a turn of a generation, as `Turns.make` does. Runs on the courier's thread."""
        assert self.decoder is not None  # it has generations
        return Turns(self.decoder, self.executor).make(errand, turn, say)

    def not_finite(self, bank: Bank, tokens: Sequence[Sequence[int]], head: Head, where: str) -> RankError:
        """Feed the tokens again with checks, and return the error that names the first operator whose output is not finite.

        Runs on the courier's thread.
        """
        found: list[NotFinite] = []

        def checked(sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
            first = None if found else self.executor.first_not_finite(sizes, outputs, inputs, bank)
            found.extend([first] if first else [])
            return self.executor.execute(sizes, outputs, inputs, bank)

        assert self.decoder is not None  # it has generations
        self.decoder.feed(checked, bank.held, tokens, head)
        bank.spoil()
        if not found:
            return RankError(f"{where}, though all operators gave finite numbers when they ran again")
        return RankError(
            f"{where}; the first operator whose output is not finite is {found[0].operator}: {found[0].what}",
            hint=f"It is instruction {found[0].instruction}, {found[0].text}. Look at what it reads; if float32 overflows, take float64.",
        )

    def _on(self, bank: Bank, errand: Errand[Any]) -> Execute:
        """A function that runs calls on a bank, as long as somebody waits for them."""

        def execute(sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
            errand.require_owner()
            return self.executor.execute(sizes, outputs, inputs, bank)

        return execute

    # what is known

    @property
    def transport(self) -> str:
        """What carries the collectives: "native", the name of another transport, or "" where one rank is alone."""
        return self.cluster.carrier.name

    @property
    def runtime(self) -> str:
        """The runtime of the collectives, as tables name it."""
        return self.cluster.carrier.runtime

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs that the ranks have: one for each recent bucket of sizes."""
        return tuple(self.executor.programs.values())

    def tracing(self) -> AbstractContextManager[list[TracedCall]]:
        """A context that records every call of a program, with the times of its instructions on every rank."""
        self.courier.require_own_process()
        return self.executor.tracing()

    def probe(self, value: float = 1.0) -> list[float]:
        """The sum of `value` over all ranks, as each rank computes it with the backend's own collectives."""
        return [reply.value for reply in self.cluster.ask_all(Probe(value)) if isinstance(reply, Answer)]

    def stats(self) -> list[EngineStats]:
        """Per rank since the start: seconds in collectives, their number and bytes, and the number of programs traced."""
        return [reply.stats for reply in self._measure()]

    def memory(self) -> list[Memory]:
        """Resident bytes per rank: after the start and before loading, now, and at the peak."""
        return [reply.memory for reply in self._measure()]

    def _measure(self) -> list[Measured]:
        return [reply for reply in self.cluster.ask_all(Measure()) if isinstance(reply, Measured)]
