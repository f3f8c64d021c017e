"""Whatever is open, run, kept, dropped and interrupted on a session at once: each says what it would say alone.

The ranks are here in this process, on an engine whose every answer depends on all that its row of the caches holds.
"""

from __future__ import annotations

import asyncio
import dis
import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from weakref import WeakSet

import pytest
from unitp_fake import SPEC
from unitp_fake.answers import scores
from unitp_fake.executor import FakeEngine
from unitp_fake.local import LocalCluster
from unitp_fake.walk import Interrupted, Walk, armed

from unitp.engine.engine import Array, Progress
from unitp.engine.sampling import Sampling
from unitp.errors import InputError, UnitpError
from unitp.mesh import Mesh
from unitp.plans import Phase, unsplit
from unitp.ranks.courier import Courier
from unitp.session import decoder, executor, generation
from unitp.session.banks import Bank, Banks, Lease
from unitp.session.decoder import Decoder, Execute, Head
from unitp.session.session import Session
from unitp.testing.models import TINY, tiny

VOCAB, CONTEXT, ROWS = TINY.vocab, 128, 6
PROMPTS = [[5], [5, 6], [5, 6, 7, 8], [5, 6, 7, 9, 9, 9], [88] * 30, [1, 2, 3], [1, 2, 3, 4, 5], [*range(20, 60)]]
PLAN = unsplit(tiny().graph, [Phase("prefill", {}), Phase("decode", {"seq": 1})])


def engine(rank: int, mesh: Mesh, progress: Progress) -> FakeEngine:
    made = FakeEngine(rank, mesh, progress, VOCAB)
    made.pause = 0.0
    return made


@contextmanager
def session(sequences: int = ROWS, context: int = CONTEXT) -> Iterator[Session]:
    """A session on fake ranks in this process."""
    cluster = LocalCluster(Mesh(), engine)
    made = Session(tiny().graph, PLAN, SPEC, "float32", cluster, {}, context, sequences)  # type: ignore[arg-type]
    with made:
        yield made


def right(ids: Sequence[int]) -> Array:
    return scores(ids, VOCAB)


def at_an_exchange(made: Session, choice: random.Random) -> Callable[[Callable[[], object]], bool]:
    """Interrupt whoever waits, by a signal, while the courier talks to the ranks: at a request, or at what they tell."""

    def interrupt(work: Callable[[], object]) -> bool:
        left = choice.choice((0, 1, 2, 5))

        def before() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                for _ in range(20):
                    time.sleep(0.0003)
                    if alarm.off:
                        break

        cluster: Any = made.cluster
        with armed() as alarm:
            cluster.before = before
            try:
                work()
                alarm.off = True
            except Interrupted:
                return True
            finally:
                cluster.before = lambda: None
                made.stats()  # what was interrupted has come to its end
        return False

    return interrupt


def walk(steps: int, seed: int) -> None:
    """Chunks are short, so that there is something to interrupt."""
    choice = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch, session() as made:
        patch.setattr(decoder, "CHUNK", decoder.SMALLEST_CHUNK)
        Walk(made, right, choice, at_an_exchange(made, choice), PROMPTS).go(steps)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_open_says_what_it_would_say_alone(seed: int) -> None:
    walk(1000, seed)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_long_walk_says_nothing_wrong(seed: int) -> None:
    walk(10_000, seed)


def everybody_in_one_bank(patch: pytest.MonkeyPatch) -> None:
    run = FakeEngine.run
    patch.setattr(FakeEngine, "run", lambda self, key, inputs, bank=0: run(self, key, inputs, min(self.banks or [0])))


class Stolen(Lease):
    """A lease that works on the rows of another, and is counted with rows of its own."""

    def __init__(self, own: Lease, other: Bank) -> None:
        super().__init__(Bank(other.number, other.sizes, other.rows, made=other.made))
        self.own = own

    def close(self) -> None:
        super().close()
        self.own.close()


def rows_of_the_open_are_given_away(patch: pytest.MonkeyPatch) -> None:
    lease, leased = Banks.lease, WeakSet[Lease]()

    def generous(self: Banks, sizes: Mapping[str, int], rows: int, prompts: Sequence[list[int]] = ()) -> Lease:
        made = lease(self, sizes, rows, prompts)
        alike = [one.bank for one in leased if not one.closed and one.bank.rows == rows and one.bank.sizes == sizes]
        leased.add(made)
        long = [bank for bank in alike if len(bank.held[0]) > 40]
        return Stolen(made, long[0]) if long else made

    patch.setattr(Banks, "lease", generous)


def keep_forgives_a_wrong_token(patch: pytest.MonkeyPatch) -> None:
    def forgiving(self: Bank, prompts: Sequence[list[int]]) -> None:
        for held, prompt in zip(self.held, prompts, strict=True):
            del held[len(prompt) - 1 :]

    patch.setattr(Bank, "keep", forgiving)


def a_chunk_that_was_interrupted_counts_as_fed(patch: pytest.MonkeyPatch) -> None:
    feed = Decoder.feed

    def early(
        self: Decoder, execute: Execute, held: Sequence[list[int]], tokens: Sequence[Sequence[int]], head: Head
    ) -> list[dict[str, Array]]:
        begun = [len(row) for row in held]

        def counted(sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
            try:
                return execute(sizes, outputs, inputs)
            except BaseException:
                for row, new, first in zip(held, tokens, begun, strict=True):
                    row.extend(new[len(row) - first :][: sizes["seq"]])
                raise

        return feed(self, counted, held, tokens, head)

    patch.setattr(Decoder, "feed", early)


@pytest.mark.parametrize(
    "mistake",
    [
        everybody_in_one_bank,
        rows_of_the_open_are_given_away,
        keep_forgives_a_wrong_token,
        a_chunk_that_was_interrupted_counts_as_fed,
    ],
)
def test_a_planted_mix_up_is_found(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    with pytest.raises((AssertionError, KeyError, ValueError, UnitpError)):
        walk(2000, 1)


def test_switching_between_generations_computes_nothing_again() -> None:
    with session() as made:
        first, second = made.generation([PROMPTS[3]], 8), made.generation([PROMPTS[4]], 8)
        for _ in zip(first, second, strict=True):
            pass
        for one in (first, second):
            assert (one.timing.prefill_tokens, one.timing.decode_tokens) == (len(one.prompts[0]), 7)


def test_rows_are_bounded_and_come_back() -> None:
    with session(sequences=3) as made:
        first, second = made.generate([PROMPTS[0], PROMPTS[1]], 5), made.generate(PROMPTS[2], 5)
        with pytest.raises(InputError, match=r"1 sequence needs a row of the caches, and the session has 3; 3 of them"):
            made.generate(PROMPTS[5], 5)
        list(second)
        third = made.generate(PROMPTS[5], 5)
        next(third)
        del first, third
        list(made.generate([PROMPTS[0]] * 3, 5))
        with pytest.raises(InputError, match=r"4 sequences need a row each of the caches, and the session has 3"):
            made.generate([PROMPTS[0]] * 4, 5)


def test_a_generation_that_is_never_read_disturbs_nobody() -> None:
    with session() as made:
        unread = made.generate(PROMPTS[4], 5)
        assert list(made.generate(PROMPTS[3], 5)) == list(made.generate(PROMPTS[3], 5))
        wanted = list(made.generate(PROMPTS[4], 5))
        assert list(unread) == wanted


def test_what_the_last_run_left_survives_generations() -> None:
    with session() as made:
        whole = made.run(input_ids=[PROMPTS[7]])["logits"]
        made.run(input_ids=[PROMPTS[7][:15]])
        list(made.generate(PROMPTS[4], 5))
        list(made.generate(PROMPTS[6], 5, keep=True))
        rest = made.run(input_ids=[PROMPTS[7][15:]], keep=True)["logits"]
        assert (rest == whole[:, 15:]).all()


def test_no_generation_goes_on_from_what_a_run_left() -> None:
    """Though it begins alike, and is asked to keep what it can."""
    with session() as made:
        made.run(input_ids=[[1, 2, 3, 4, 5]])
        list(made.generate([1, 2, 3, 9], 3, keep=True))
        rest = made.run(input_ids=[[6]], keep=True)["logits"]
        assert (rest == made.run(input_ids=[[1, 2, 3, 4, 5, 6]])["logits"][:, 5:]).all()


def test_a_run_that_is_refused_leaves_what_was_there() -> None:
    with session(sequences=2) as made:
        made.run(input_ids=[[1, 2, 3]])
        with made.generate([5], 3), pytest.raises(InputError, match="2 sequences need a row each"):
            made.run(input_ids=[[1], [2]])
        rest = made.run(input_ids=[[4]], keep=True)["logits"]
        assert (rest == made.run(input_ids=[[1, 2, 3, 4]])["logits"][:, 3:]).all()


def test_an_interrupted_run_leaves_nothing_to_keep() -> None:
    with session() as made:
        interrupt = at_an_exchange(made, random.Random(3))
        made.run(input_ids=[[1, 2]])
        while not interrupt(lambda: made.run(input_ids=[[3]], keep=True)):
            pass
        with pytest.raises(InputError, match="nothing to keep: the last run was interrupted"):
            made.run(input_ids=[[3]], keep=True)


def test_rows_come_back_once_all_sequences_are_stopped() -> None:
    with session(sequences=1) as made:
        one = made.generation([[5]], 9)
        next(one)
        one.stop(0)
        assert len(list(made.generate([6], 2))) == 2
        assert list(one) == []


def test_a_generation_that_is_closed_while_its_step_waits_does_not_run() -> None:
    with session(sequences=1) as made:
        one, gate, errors = made.generation([[5]], 9), threading.Event(), []
        blocked = threading.Thread(target=lambda: made.cluster.do(lambda _: gate.wait(10)))

        def step() -> None:
            try:
                next(one)
            except InputError as error:
                errors.append(str(error))

        stepping = threading.Thread(target=step)
        blocked.start()
        time.sleep(0.05)
        stepping.start()
        time.sleep(0.05)
        one.close()
        gate.set()
        stepping.join()
        blocked.join()
        assert ["was closed before it ended" in error for error in errors] == [True]
        assert one.tokens == [[]]


def test_no_interruption_holds_up_the_courier() -> None:
    """Wherever in the waiting it strikes: a tracer raises at every line and call of it, one after the other."""
    courier, place = Courier(), 0
    while True:
        place += 1
        left = place

        def strike(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Interrupted
            return strike

        done: list[int] = []
        sys.settrace(strike)
        try:
            courier.do(lambda _: done.append(1))  # noqa: B023
        except Interrupted:
            assert courier.do(lambda _: 7) == 7
            continue
        finally:
            sys.settrace(None)
        break
    assert place > 20
    courier.close(5.0)


SIGNALS = {code for name, code in dis.opmap.items() if name.startswith(("CALL", "JUMP_BACKWARD", "RESUME"))}
"""The instructions after which Python looks for signals."""


class Strike:
    """A tracer that interrupts code of some files once, where a signal could: at the place of this number."""

    def __init__(self, place: int, files: Sequence[str]) -> None:
        self.left, self._files = place, files
        self._before: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = frame.f_code.co_code[frame.f_lasti]
            if before in SIGNALS:
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    raise Interrupted
        return self


def test_no_interruption_loses_a_step_or_gives_it_twice() -> None:
    """Wherever in the taking and waiting it strikes, one place after the other."""
    files = (generation.__file__, Courier.wait.__code__.co_filename)
    with session() as made:
        wanted, place = [[token] for token in made.generate(PROMPTS[3], 4)], 0
        while True:
            place += 1
            strike, one, found = Strike(place, files), made.generation([PROMPTS[3]], 4), list[list[int | None]]()

            def take() -> None:
                for step in one:  # noqa: B023
                    found.append(step)  # noqa: B023

            sys.settrace(strike)
            try:
                take()
            except Interrupted:
                take()
            finally:
                sys.settrace(None)
            assert found == wanted, f"struck at place {place}"
            assert (one.tokens[0], one.finish_reasons) == ([step[0] for step in wanted], ["length"])
            if strike.left > 0:
                break
    assert place > 100


def test_what_cannot_be_kept_is_told() -> None:
    with session(sequences=2) as made:
        made.run(input_ids=[PROMPTS[0]])
        with pytest.raises(InputError, match=r"the last run had batch=1, cache=128, this one has batch=2"):
            made.run(input_ids=[PROMPTS[0], PROMPTS[0]], keep=True)
        list(made.generate([PROMPTS[0], PROMPTS[1]], 2))
        with pytest.raises(InputError, match="its rows of the caches were needed for other sequences"):
            made.run(input_ids=[PROMPTS[0]], keep=True)
        made.reset()
        made.run(input_ids=[PROMPTS[0]], keep=True)


def test_a_generation_goes_on_raising_once_its_session_is_closed() -> None:
    with session() as made:
        tokens = made.generate(PROMPTS[0], 5)
        next(tokens)
    for _ in range(2):
        with pytest.raises(UnitpError):
            next(tokens)


def test_calls_of_several_threads_queue() -> None:
    """Eight threads, each with generations of its own, and two that share one."""
    with session(sequences=16) as made:
        wanted = [list(made.generate(prompt, 6)) for prompt in PROMPTS]
        found: dict[tuple[int, int], list[int]] = {}
        shared, taken = made.generate(PROMPTS[0], 40), []

        def work(number: int) -> None:
            for turn in range(6):
                found[number, turn] = list(made.generate(PROMPTS[number], 6))
                with suppress(StopIteration):
                    for _ in range(3):
                        taken.append(next(shared))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(PROMPTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(tokens == wanted[number] for (number, _), tokens in found.items())
        assert len(found) == 6 * len(PROMPTS)
        assert sorted(taken) == sorted(made.generate(PROMPTS[0], 40))


def test_calls_of_asyncio_queue() -> None:
    async def all_of(made: Session) -> list[list[int]]:
        def tokens(prompt: list[int]) -> list[int]:
            return list(made.generate(prompt, 6))

        return await asyncio.gather(*(asyncio.to_thread(tokens, prompt) for prompt in PROMPTS))

    with session(sequences=16) as made:
        assert asyncio.run(all_of(made)) == [list(made.generate(prompt, 6)) for prompt in PROMPTS]


def test_a_fork_is_refused_at_every_entry() -> None:
    with session() as made:
        tokens = made.generate(PROMPTS[0], 5)
        next(tokens)
        entries = {
            "run": lambda: made.run(input_ids=[PROMPTS[0]]),
            "generate": lambda: made.generate(PROMPTS[0]),
            "next": lambda: next(tokens),
            "reset": made.reset,
            "probe": made.probe,
            "stats": made.stats,
            "memory": made.memory,
            "load": made.load,
        }
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            for name, entry in entries.items():
                try:
                    entry()
                except UnitpError as error:
                    if "is a fork of the one that launched the session" in str(error):
                        os.write(write, f"{name} ".encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 1000).decode().split() == list(entries)
        os.close(read)
        assert list(tokens) == list(made.generate(PROMPTS[0], 5))[1:]


def test_a_session_goes_when_it_is_dropped() -> None:
    """No garbage collector is needed."""
    gc.disable()
    try:
        with session() as made:
            cluster = made.cluster
            closed: list[bool] = []
            cluster.close, close = lambda: closed.append(True), cluster.close  # type: ignore[method-assign]
            other = Session(made.graph, PLAN, SPEC, "float32", cluster, {}, CONTEXT, ROWS)
            list(other.generate(PROMPTS[0], 3))
            other.run(input_ids=[PROMPTS[0]])
            del other
            assert closed == [True]
            cluster.close = close  # type: ignore[method-assign]
    finally:
        gc.enable()


def test_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PROGRAMS", 3)
    with session() as made:
        (worker,) = made.cluster.workers  # type: ignore[attr-defined]
        for k in (1, 2, 3, 5, 9, 17, 33, 65, 2):
            list(made.generate(PROMPTS[7], 3, sampling=Sampling(temperature=1.0, top_k=k)))
            assert len(made.programs) <= 3
            assert len(worker.engine.programs) == len(worker.numbers) == len(worker.wanted) == len(made.programs)


def test_candidates_are_powers_of_two() -> None:
    assert {Sampling(temperature=1.0, top_k=k).candidates(VOCAB) for k in range(1, VOCAB + 9)} == {
        1, 2, 4, 8, 16, 32, 64, 128, 256, VOCAB,
    }  # fmt: skip
    assert all(Sampling(temperature=1.0, top_k=k).candidates(VOCAB) >= min(k, VOCAB) for k in range(1, VOCAB + 9))
