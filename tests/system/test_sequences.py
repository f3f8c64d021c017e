"""What is open at once on real ranks: a state machine of everything that a session can do, against an unsharded reference;
threads, forks, interruptions; and thousands of calls that leave nothing behind.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from unitp_fake.walk import Logits, Walk, by_timer

from unitp.engine.sampling import Sampling
from unitp.errors import InputError, UnitpError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.ranks.processes import marked
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CONTEXT, ROWS = 128, 6
PROMPTS = [[5], [5, 6], [5, 6, 7, 8], [5, 6, 7, 9, 9, 9], [88] * 30, [1, 2, 3], [1, 2, 3, 4, 5], [*range(20, 60)]]


Watched = Callable[[], AbstractContextManager[object]]


@pytest.fixture(scope="module")
def split(tiny: Graph, watched_for_long: Watched) -> Iterator[Session]:
    """Two ranks of NumPy that really share the work."""
    made = plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    with watched_for_long(), launch(tiny, made, dtype="float64", context=CONTEXT, sequences=ROWS) as session:
        yield session


@pytest.fixture(scope="module")
def alone(tiny: Graph, watched_for_long: Watched) -> Iterator[Session]:
    """The reference: one rank, and every sequence by a run of its own."""
    with watched_for_long(), launch(tiny, plan(Request(tiny, Mesh())), dtype="float64", context=CONTEXT) as session:
        yield session


class Reference:
    """The logits after a row of ids, from whole runs of the sequence."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.known: dict[tuple[int, ...], Logits] = {}

    def __call__(self, ids: Sequence[int]) -> Logits:
        key = tuple(ids)
        if key not in self.known:
            logits = self.session.run(input_ids=[list(ids)])["logits"][0]
            self.known |= {key[: place + 1]: row for place, row in enumerate(logits)}
        return self.known[key]


def walked(split: Session, alone: Session, examples: int) -> None:
    right = Reference(alone)

    class Machine(RuleBasedStateMachine):
        """The steps of a walk as rules; each example ends with everything that is open being right to its end."""

        def __init__(self) -> None:
            super().__init__()
            choice = random.Random(0)
            self.walk = Walk(split, right, choice, by_timer(choice, 0.006), PROMPTS, atol=1e-9)

        @rule(what=st.sampled_from(Walk.STEPS), seed=st.integers(0, 1 << 32))
        def do(self, what: Callable[[Walk], None], seed: int) -> None:
            self.walk.choice.seed(seed)
            what(self.walk)

        def teardown(self) -> None:
            self.walk.go(0)
            split.reset()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_real_ranks_confuse_nothing(split: Session, alone: Session) -> None:
    walked(split, alone, 6)


@pytest.mark.full
def test_real_ranks_confuse_nothing_in_2000_steps(split: Session, alone: Session) -> None:
    walked(split, alone, 60)


def test_threads_and_a_fork_beside_them(split: Session) -> None:
    """A forked child is refused, and hangs on nothing that a thread of its parent held."""
    wanted = [list(split.generate(prompt, 5)) for prompt in PROMPTS]
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(6):
            if (found := list(split.generate(PROMPTS[number], 5))) != wanted[number]:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(ROWS)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(5):
        if (child := os.fork()) == 0:
            try:
                split.run(input_ids=[PROMPTS[0]])
            except InputError:
                os._exit(7)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for thread in threads:
        thread.join()
    assert codes == [7] * 5
    assert wrong == []


def test_closing_under_a_thread_ends_its_call(tiny: Graph) -> None:
    errors: list[Exception] = []
    with launch(tiny, plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT)), context=CONTEXT) as session:
        begun = threading.Event()

        def work() -> None:
            try:
                while True:
                    list(session.generate(PROMPTS[7], 20))
                    begun.set()
            except UnitpError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
    thread.join(10)
    assert not thread.is_alive()
    assert [str(error).partition("\n")[0] for error in errors] == ["the session was closed"]


# what thousands of calls leave


def held(session: Session) -> dict[str, int]:
    """Descriptors of driver and ranks, shared segments, files of the session, and resident MiB of all of them."""
    pids = [os.getpid(), *(m.seen.pid for m in marked(session.cluster.mark).values() if m.worker)]
    return {
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        "threads": sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        "segments": len(os.listdir("/dev/shm")),
        "files": len(list(session.cluster.folder.iterdir())),
        "MiB": sum(_resident(pid) for pid in pids) >> 20,
    }


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@lru_cache
def prompt(seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 97, 1 + seed % 50).tolist())


def called(session: Session, calls: int) -> None:
    """So many calls: generations of all kinds, dropped ones among them, runs, and requests that are refused."""
    for number in range(calls):
        ids = list(prompt(number % 200))
        match number % 5:
            case 0:
                list(session.generate(ids, 3, sampling=Sampling(temperature=1.0, top_k=1 + number % 90)))
            case 1:
                next(session.generate([ids, ids[:1]], 3))
            case 2:
                session.run(input_ids=[ids], keep=number % 2 == 1 and len(ids) < 20)
                session.reset()
            case 3:
                list(session.generate(ids, 2, keep=True))
            case 4:
                with pytest.raises(UnitpError):
                    session.run(input_ids=[[97]])


def soak(tiny: Graph, backend: str, calls: int) -> tuple[dict[str, int], dict[str, int]]:
    """What was held after the first half of the calls, and at the end."""
    made = plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    with launch(tiny, made, backend, context=CONTEXT, sequences=ROWS) as session:
        called(session, calls // 2)
        before = held(session)
        called(session, calls - calls // 2)
        return before, held(session)


def require_flat(before: dict[str, int], after: dict[str, int]) -> None:
    grown = {name: after[name] - before[name] for name in before if name != "MiB"}
    assert all(n <= 0 for n in grown.values()), f"grown: {grown}"
    assert after["MiB"] - before["MiB"] <= 8, f"{before} {after}"


def test_hundreds_of_calls_leave_nothing(tiny: Graph) -> None:
    require_flat(*soak(tiny, "numpy", 300))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_5000_calls_leave_nothing(tiny: Graph, backend: str) -> None:
    require_flat(*soak(tiny, backend, 5000))
