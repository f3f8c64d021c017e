"""The watchdog's judgement on plain `sleep` processes: who is named, what is said, and that all are ended."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calls import calls

from unitp.errors import InputError, ModelError, RankError, UnitpError
from unitp.ranks import judge, watchdog
from unitp.ranks.endings import Endings
from unitp.ranks.environment import MARK, for_process, number_of, own_number
from unitp.ranks.judge import Judge
from unitp.ranks.limits import Limits
from unitp.ranks.member import Member
from unitp.ranks.processes import end_all, look, marked
from unitp.ranks.progress import Activity, Page, PageProgress
from unitp.ranks.watchdog import Watchdog
from unitp.wire.messages import Failed


class Den:
    """Two ranks that sleep, a server, their pages, and a watchdog over them."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.mark = secrets.token_hex(8)
        names = ["rank 0", "rank 1", "server 0"]
        self.members = [self.member(name, folder) for name in names]
        self.pages = {name: Page(folder / name, create=True) for name in names}
        self.dog = Watchdog(self.mark, self.members, self.pages, 2, limits, lambda name: f"{name} rests")
        self.judge = self.dog.judge
        self.dog.start()

    def member(self, name: str, folder: Path) -> Member:
        env = {**os.environ, MARK: self.mark}
        log = folder / f"{name}.log"
        log.write_text("last words\n")
        process = subprocess.Popen(["sleep", "100"], env=env, start_new_session=True)
        return Member(name, "server" if "server" in name else "worker", process, [log], ())

    def send(self, place: int, sent: signal.Signals) -> None:
        os.kill(self.members[place].process.pid, sent)

    def verdict(self, limit_s: float = 5.0) -> UnitpError:
        assert self.dog.failed.wait(limit_s)
        assert self.dog.error is not None
        assert all(member.process.returncode is not None for member in self.members)
        return self.dog.error


@pytest.fixture
def den(tmp_path: Path) -> Iterator[Callable[..., Den]]:
    dens = []

    def make(**limits: float) -> Den:
        dens.append(Den(tmp_path, Limits(**limits)))
        time.sleep(0.15)  # until all are under watch
        return dens[-1]

    yield make
    for made in dens:
        made.dog.stop()
        assert end_all(made.mark) == []
        for member in made.members:
            member.reap()


def test_a_killed_process_is_named_with_what_it_did(den: Callable[..., Den]) -> None:
    made = den()
    made.judge.started()
    pid = made.members[1].process.pid
    made.send(1, signal.SIGKILL)
    assert str(made.verdict()) == f"rank 1 (process {pid}) was killed by SIGKILL while rank 1 rests"


def test_what_could_not_be_ended_is_told_with_how_to_mend_it(
    den: Callable[..., Den], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = den()
    made.judge.started()
    stubborn = look(os.getpid())
    assert stubborn is not None
    monkeypatch.setattr(watchdog, "end_all", lambda mark: [*end_all(mark), stubborn])
    made.send(0, signal.SIGKILL)
    assert made.verdict().hint.endswith(
        f"unitp could not end {stubborn.command} (process {os.getpid()}): end them yourself."
    )


@pytest.mark.parametrize("first, second", [(0, 1), (1, 0), (2, 0)])
def test_of_several_deaths_the_first_is_named_however_late_one_looks(
    den: Callable[..., Den], first: int, second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = den()
    made.judge.started()
    wait = Endings.wait

    def late(self: Endings, limit_s: float) -> None:
        time.sleep(0.3)
        wait(self, limit_s)

    monkeypatch.setattr(Endings, "wait", late)
    time.sleep(0.15)
    made.send(first, signal.SIGKILL)
    time.sleep(0.02)
    made.send(second, signal.SIGKILL)
    assert str(made.verdict()).startswith(made.members[first].name)


def test_a_stopped_server_is_named(den: Callable[..., Den]) -> None:
    made = den()
    made.send(2, signal.SIGSTOP)
    assert "server 0" in str(made.verdict())
    assert "is stopped (SIGSTOP)" in str(made.verdict())


def test_a_stop_that_does_not_last_is_forgiven(den: Callable[..., Den]) -> None:
    made = den()
    made.judge.started()
    for place, sent in ((0, signal.SIGSTOP), (1, signal.SIGSTOP), (0, signal.SIGCONT), (1, signal.SIGCONT)):
        made.send(place, sent)
        time.sleep(0.2)
    time.sleep(judge.STOPPED_S)
    assert made.dog.error is None


def test_a_death_counts_before_the_exception_that_it_causes(den: Callable[..., Den]) -> None:
    made = den()
    made.judge.started()
    made.send(1, signal.SIGKILL)
    error = made.dog.report("rank 0", Failed("RuntimeError", "connection closed by peer", "", "trace"))
    assert str(error).startswith("rank 1")


def test_an_exception_without_a_death_is_quoted(den: Callable[..., Den]) -> None:
    error = den().dog.report("rank 0", Failed("RuntimeError", "no such thing", "", "the trace"))
    assert str(error) == "rank 0 raised RuntimeError while rank 0 rests: no such thing"
    assert error.__notes__ == ["the trace"]


def test_an_error_of_unitp_stays_what_it_is(den: Callable[..., Den]) -> None:
    error = den().dog.report("rank 1", Failed("ModelError", "the file is cut short", "Fetch it again.", ""))
    assert isinstance(error, ModelError)
    assert str(error) == "rank 1: the file is cut short\nFetch it again."


def test_a_broken_connection_of_a_live_process_is_an_error(den: Callable[..., Den]) -> None:
    assert str(den().dog.report("rank 0", None)) == "rank 0 closed its connection while rank 0 rests"


def test_a_process_that_leaves_is_shown_with_its_last_words(den: Callable[..., Den]) -> None:
    made = den()
    made.send(0, signal.SIGABRT)
    assert str(made.verdict()).endswith("was killed by SIGABRT while rank 0 rests\n  | last words")


def test_a_silent_heart_is_noticed(den: Callable[..., Den]) -> None:
    made = den(heartbeat_s=0.5)
    time.sleep(0.8)
    assert made.dog.error is None  # ranks that start, and import a framework, may be silent
    for name in ("rank 0", "server 0"):
        made.pages[name].keep_beating(0.1)
    made.judge.started()
    error = str(made.verdict())
    assert "rank 1" in error
    assert "has given no sign of life for 1 s" in error


class Frozen:
    """A judge that looks at a time that is made up: what happens while everything is frozen."""

    def __init__(self, folder: Path, limits: Limits, ranks: int) -> None:
        """Rank 0 is a process; of other ranks there are only the pages."""
        self.now = 0.0
        self.mark = secrets.token_hex(8)
        env = {**os.environ, MARK: self.mark}
        self.process = subprocess.Popen(["sleep", "100"], env=env, start_new_session=True)
        self.pages = {f"rank {rank}": Page(folder / f"rank {rank}", create=True) for rank in range(ranks)}
        self.page = self.pages["rank 0"]
        self.page.beat()
        members = [Member("rank 0", "worker", self.process, [], ())]
        self.endings = Endings()
        self.judge = Judge(self.mark, members, self.pages, ranks, limits, str, self.endings, lambda: self.now)
        self.pass_by(0.1)

    def pass_by(self, seconds: float, step_s: float = 0.1, beating: bool = True) -> UnitpError | None:
        """What is wrong first while so much time passes, with a look every `step_s`."""
        error, end = None, self.now + seconds
        while self.now < end - 1e-9 and error is None:
            self.now += step_s
            if beating:
                self.page.beat()
            error = self.judge.look()
        return error


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Callable[..., Frozen]]:
    all_made = []

    def make(ranks: int = 1, **limits: float) -> Frozen:
        all_made.append(Frozen(tmp_path, Limits(**limits), ranks))
        return all_made[-1]

    yield make
    for made in all_made:
        made.endings.close()
        made.process.kill()
        made.process.wait()


def test_who_is_least_far_keeps_the_others_waiting(frozen: Callable[..., Frozen]) -> None:
    made = frozen(ranks=2, stall_s=4.0)
    made.judge.started()
    for name, instruction in (("rank 0", 7), ("rank 1", 6)):
        made.pages[name].enter(Activity.RUNNING)
        PageProgress(made.pages[name]).at(instruction)
    assert made.pass_by(6.0) is None  # nobody is asked for anything
    made.judge.working(True)
    assert made.pass_by(3.0) is None
    PageProgress(made.pages["rank 0"]).at(8)  # progress, which starts the time anew
    assert made.pass_by(3.9) is None
    assert "rank 1 has made no progress for 4 s" in str(made.pass_by(0.3))


LONG_S = 100.0


def thaw(made: Frozen) -> UnitpError | None:
    """The first look after a long freeze of everything, before anybody else did anything."""
    return made.pass_by(LONG_S, LONG_S, beating=False)


def test_a_freeze_of_everything_is_no_silence(frozen: Callable[..., Frozen]) -> None:
    made = frozen(heartbeat_s=5.0)
    made.judge.started()
    assert made.pass_by(3.0) is None
    assert thaw(made) is None
    assert made.pass_by(3.9, beating=False) is None
    assert made.pass_by(10.0) is None
    assert "no sign of life for 5 s" in str(made.pass_by(5.2, beating=False))


def test_a_freeze_of_everything_is_no_stall(frozen: Callable[..., Frozen]) -> None:
    made = frozen(stall_s=5.0)
    made.judge.started()
    made.judge.working(True)
    assert made.pass_by(3.0) is None
    assert thaw(made) is None
    assert made.pass_by(0.9) is None
    assert "no progress for 5 s" in str(made.pass_by(0.3))


def test_a_freeze_of_everything_does_not_delay_a_start(frozen: Callable[..., Frozen]) -> None:
    made = frozen(start_s=5.0)
    assert made.pass_by(3.0) is None
    assert thaw(made) is None
    assert made.pass_by(0.8) is None
    assert "did not start within 5 s" in str(made.pass_by(0.3))


def test_who_is_thawed_a_little_later_is_forgiven_and_who_is_not_thawed_is_named(frozen: Callable[..., Frozen]) -> None:
    made = frozen()
    made.judge.started()
    for later_s in (0.0, 1.0, 3.0):
        made.process.send_signal(signal.SIGSTOP)
        wait_for_state(made.process.pid, "T")
        assert made.pass_by(0.2) is None  # it is frozen a little before the driver
        assert thaw(made) is None
        assert made.pass_by(later_s) is None
        made.process.send_signal(signal.SIGCONT)
        wait_for_state(made.process.pid, "S")
        assert made.pass_by(10.0) is None
    made.process.send_signal(signal.SIGSTOP)
    wait_for_state(made.process.pid, "T")
    assert thaw(made) is None
    assert "rank 0" in str(made.pass_by(6.0))


def wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 5
    while (seen := look(pid)) is None or seen.state != state:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_start_limit_grows_with_the_ranks_of_a_core() -> None:
    cores = len(os.sched_getaffinity(0))
    alone, crowded = Limits().of_group(60.0, 1), Limits().of_group(60.0, 4 * cores)
    assert (alone.start_s, crowded.start_s) == (60.0, 240.0)
    assert crowded.missing_s == 4 * alone.missing_s
    assert Limits(start_s=5.0).of_group(60.0, 4 * cores) == Limits(start_s=5.0)


def test_a_slow_start_is_ended(den: Callable[..., Den]) -> None:
    error = den(start_s=0.3).verdict()
    assert isinstance(error, RankError)
    assert "did not start within 0 s (rank 0: rank 0 rests; rank 1: rank 1 rests)" in str(error)


def test_processes_are_found_by_their_mark_and_only_by_it() -> None:
    mark = secrets.token_hex(8)
    env = for_process({}, {"A": "b"}, mark=mark, role="worker", number=4, folder="/nowhere", threads=3)
    assert env["OMP_NUM_THREADS"] == "3"
    child = subprocess.Popen(["/bin/sleep", "100"], env=env)
    try:
        deadline = time.monotonic() + 5
        while not (found := marked(mark)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (found[child.pid].role, found[child.pid].number, found[child.pid].worker) == ("worker", 4, False)
        seen = look(child.pid)
        assert seen is not None
        assert seen.parent == os.getpid()
        assert marked(mark[:-1] + "x") == {}
    finally:
        assert end_all(mark) == []
        child.wait()
    assert look(child.pid) is None


def test_a_rank_takes_its_number_from_its_launcher() -> None:
    assert number_of({"PMI_RANK": "3", "RANK": "5"}) == 3
    assert number_of({"UNITP_NUMBER": "1", "PMI_RANK": "3"}) == 1
    assert own_number({"SLURM_PROCID": "0"}) == 0
    assert "PMI_RANK" not in for_process({"PMI_RANK": "1"}, {}, mark="t", role="r", number=None, folder="f", threads=1)
    with pytest.raises(InputError, match="did not say which rank"):
        own_number({})


def test_progress_costs_next_to_nothing(tmp_path: Path) -> None:
    """A note of progress is a store into a mapped page: few calls, however many notes there were before."""
    progress = PageProgress(Page(tmp_path / "page", create=True))
    counts = [calls(lambda at=number: progress.at(at)) for number in range(2_000)]  # type: ignore[misc]
    assert max(counts) <= 5
    assert Page(tmp_path / "page").instruction == 1_999
