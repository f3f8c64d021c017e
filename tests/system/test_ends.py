"""However a driver ends, its session ends with it: no process, folder or segment is left (proved by the fixture `zoo`).

The supervisor's own part is tried without ranks, on processes that sleep under a session's mark.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver

from unitp.errors import RankError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backend
from unitp.plugins.spec import BackendSpec
from unitp.ranks.judge import how_it_ended
from unitp.ranks.processes import look
from unitp.ranks.progress import BEAT_S, Activity, Page
from unitp.ranks.serve import NO_MEMORY, Reserve, report
from unitp.session.launch import launch
from unitp.session.session import Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

PROMPT = list(range(1, 40))


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Processes that must still be alive at the end of a test, and are ended then."""
    pids: list[int] = []
    yield pids
    alive = [pid for pid in pids if (seen := look(pid)) is not None and seen.alive]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert alive == pids


def all_but(zoo: Any, children: list[int], limit_s: float = 20.0) -> list[str]:
    """What is left of a session while children of its driver live."""
    deadline = time.monotonic() + limit_s
    left = []
    while time.monotonic() < deadline:
        left = [line for line in zoo.left(0.0) if int(line.split()[0]) not in children]
        if not left:
            break
        time.sleep(0.02)
    return left


@pytest.mark.parametrize("kind", ["fork", "pool"])
def test_children_of_a_killed_driver_do_not_keep_its_session(kind: str, zoo: Any, children: list[int]) -> None:
    with Driver("numpy", "decode", "--children", kind) as driver:
        driver.wait_for("turn")
        driver.wait_for("child")
    children += driver.children
    assert all_but(zoo, driver.children) == []


def test_a_driver_that_is_killed_while_a_rank_holds_its_lock_leaves_nothing(zoo: Any) -> None:
    """As while ranks join in MPI_Init: no thread of Python runs in them."""
    with Driver("fake", "start", environment={"FAKE": "1:join:grip"}) as driver:
        driver.wait_for("launching")
        zoo.find("rank 1")
        page = Page(next(Path(os.environ["TMPDIR"]).glob("unitp-*/rank1.page")))
        while page.activity is not Activity.JOINING:
            time.sleep(0.02)
        time.sleep(2 * BEAT_S)
        beat = page.heartbeat
        time.sleep(2 * BEAT_S)
        assert page.heartbeat == beat
    assert zoo.left(20.0) == []


@pytest.mark.parametrize("stopped", ["rank 0", "mpiexec", "hydra_pmi_proxy"])
def test_a_driver_that_is_killed_while_somebody_is_stopped_leaves_nothing(stopped: str, zoo: Any) -> None:
    with Driver("numpy", "decode") as driver:
        driver.wait_for("turn")
        os.kill(zoo.find(stopped).pid, signal.SIGSTOP)
    assert zoo.left(20.0) == []


def run_on(session: Session) -> None:
    while True:
        session.run(input_ids=[PROMPT], last=True)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=lambda s: s.name)
def test_the_loss_of_the_supervisor_is_told(sent: signal.Signals, zoo: Any, tiny: Graph, fake: BackendSpec) -> None:
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        os.kill(zoo.find("supervisor").pid, sent)
        with pytest.raises(RankError, match=r"^supervisor \(process \d+\) .* while watching over the driver"):
            run_on(session)


def test_signals_meant_for_the_driver_do_not_reach_the_supervisor(zoo: Any, tiny: Graph, fake: BackendSpec) -> None:
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        supervisor = zoo.find("supervisor")
        assert os.getsid(supervisor.pid) == os.getpgid(supervisor.pid) == supervisor.pid
        for sent in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(supervisor.pid, sent)
        for _ in range(3):
            session.run(input_ids=[PROMPT], last=True)
        seen = look(supervisor.pid)
        assert seen is not None
        assert seen == supervisor._replace(cpu_s=seen.cpu_s)


def inherited() -> list[str]:
    """The sockets, pipes and handles of processes that this process has open."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return [link for link in links if link.startswith(("socket:", "anon_inode:", "pipe:"))]


def test_a_fork_of_the_driver_keeps_nothing_of_the_session(tiny: Graph, fake: BackendSpec) -> None:
    before = sorted(inherited())
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        assert len(inherited()) > len(before)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            own = os.readlink(f"/proc/self/fd/{write}")
            os.write(write, repr(sorted(link for link in inherited() if link != own)).encode())
            session.close()  # is its parent's
            os._exit(0)
        os.close(write)
        with open(read) as said:
            assert said.read() == repr(before)
        assert os.waitpid(child, 0)[1] == 0
        assert session.probe() == [2.0, 2.0]


def test_a_fork_while_ranks_start_does_not_keep_the_start(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread forks at the worst of moments: `Popen` waits for the end of a pipe that the fork would have inherited."""
    popen: Any = subprocess.Popen
    started, children = popen._execute_child, []

    def fork() -> None:
        if not (child := os.fork()):
            time.sleep(30)
            os._exit(0)
        children.append(child)

    def start(*arguments: Any) -> None:
        thread = threading.Thread(target=fork)
        monkeypatch.setattr(subprocess.Popen, "_execute_child", started)
        pipe = os.pipe

        def wide() -> tuple[int, int]:
            ends = pipe()
            thread.start()
            thread.join(0.5)  # the fork comes now, unless it has to wait
            return ends

        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", wide)
            started(*arguments)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", start)
    try:
        with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
            assert session.probe() == [2.0, 2.0]
        assert [os.waitpid(child, os.WNOHANG) for child in children] == [(0, 0)], "the start waited for the fork's end"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


SLEEPERS = """
    import os, subprocess, sys, time
    from unitp.ranks.environment import MARK
    from unitp.ranks.leftovers import Leftovers
    from unitp.ranks.supervisor import Supervisor

    folder, what = sys.argv[1:]
    os.mkdir(folder)
    supervisor = Supervisor(sys.executable, Leftovers("marked", folder, time.time()))
    sleeper = subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: "marked"}, start_new_session=True)
    print(sleeper.pid, flush=True)
    if what == "becomes another program":
        os.execvp("sleep", ["sleep", "100"])
    if what == "is interrupted while it closes":
        supervisor.let_go()
    time.sleep(100)
"""


@pytest.mark.parametrize("what", ["is killed", "becomes another program", "is interrupted while it closes"])
def test_a_session_ends_when_its_driver(what: str, tmp_path: Path) -> None:
    """Sleepers, and stopped at that, are ended without anybody's help."""
    folder = tmp_path / "session"
    command = [sys.executable, "-c", textwrap.dedent(SLEEPERS), str(folder), what]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        sleeper = int(driver.stdout.readline())
        os.kill(sleeper, signal.SIGSTOP)
        if what == "is killed":
            driver.kill()
        deadline = time.monotonic() + 20
        while ((seen := look(sleeper)) is not None and seen.alive) or folder.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.communicate()


@pytest.mark.parametrize("stage", ["join", "run"])
def test_a_rank_without_memory_says_so(
    stage: str, tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", f"1:{stage}:starve")
    with (
        pytest.raises(RankError, match="rank 1 raised MemoryError while"),
        launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session,
    ):
        session.run(input_ids=[PROMPT])


def test_a_process_that_cannot_even_report_ends_with_a_code_of_its_own() -> None:
    class Full:
        def send(self, message: object) -> None:
            raise MemoryError

    child = os.fork()
    if not child:
        full: Any = Full()
        report(full, ValueError("unheard"), Reserve())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == NO_MEMORY
    assert "ran out of memory" in how_it_ended(code)


def test_mpi_leaves_no_name_in_shared_memory(zoo: Any, tiny: Graph) -> None:
    """Once all ranks have joined, whatever ends them."""
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), backend("numpy")):
        rank = zoo.find("rank 0").pid
        maps = Path(f"/proc/{rank}/maps").read_text().splitlines()
    segments = [line.split(maxsplit=5)[5] for line in maps if "/dev/shm/mpich" in line]
    assert segments
    assert all(name.endswith(" (deleted)") for name in segments)
