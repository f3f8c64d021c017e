"""Whatever happens to a process of a session, the driver gets one clear error soon, and nothing is left.

The matrix kills and stops each kind of process at start-up, in prefill and in decode, on every backend. That no
process and no folder is left is proved by the fixture `zoo` after each test.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver

from unitp.certificate import CertifiedPlan
from unitp.errors import InputError, RankError
from unitp.explain.description import describe
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backend, missing
from unitp.plugins.spec import BackendSpec, Process
from unitp.ranks import judge
from unitp.ranks.cluster import Cluster
from unitp.ranks.limits import Limits
from unitp.session.launch import Ports, launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT
from unitp.wire.channel import encode
from unitp.wire.greeting import SOCKET
from unitp.wire.messages import Hello, Proof

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

PROMPT = list(range(1, 40))
LIMIT_S = 15.0

ROLES = {
    "fake": ["rank 0", "rank 1", "server 0", "scheduler 0"],
    "numpy": ["rank 0", "rank 1", "mpiexec", "hydra_pmi_proxy"],
    "torch": ["rank 0", "rank 1"],
    "tensorflow": ["rank 0", "rank 1"],
    "mxnet": ["rank 0", "rank 1", "server 0", "scheduler 0"],
    **{f"{name}/mpi": ["rank 0", "rank 1", "mpiexec", "hydra_pmi_proxy"] for name in ("torch", "tensorflow", "mxnet")},
}
"""Who there is, by backend, or by backend and transport."""
QUICK = {"fake", "numpy"}
CASES = [
    pytest.param(name, role, stage, sent, id=f"{name}-{role}-{stage}-{sent.name}", marks=marks)
    for name, roles in ROLES.items()
    for role in roles
    for stage in ("start", "prefill", "decode")
    for sent in (signal.SIGKILL, signal.SIGSTOP)
    for marks in [
        () if name in QUICK or (role, stage, sent) == ("rank 1", "decode", signal.SIGKILL) else (pytest.mark.full,)
    ]
]


def endless(session: Session, stage: str) -> Iterator[None]:
    """Prefill again and again, or decode until the context ends, again and again."""
    while True:
        if stage == "prefill":
            session.run(input_ids=[PROMPT * 8], last=True)
            yield
        else:
            for _ in session.generate(PROMPT, 500):
                yield


class Blow:
    """Sends a signal to a process of the test from a thread, once it is told to; knows how long ago that was."""

    def __init__(self, zoo: Any, name: str, sent: signal.Signals) -> None:
        self.zoo, self.name, self.sent = zoo, name, sent
        self.at = 0.0
        self.pid = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.pid = self.zoo.find(self.name).pid
        self.at = time.monotonic()
        os.kill(self.pid, self.sent)


def split_plan(graph: Graph) -> CertifiedPlan:
    """A plan whose ranks wait for each other in every layer."""
    return plan(Request(graph, Mesh(tp=2), machine=EAGER_TO_SPLIT))


def test_the_ranks_of_these_tests_wait_for_each_other(tiny: Graph) -> None:
    moves = describe(split_plan(tiny), tiny).moves
    assert sum(move.count for move in moves if move.phase == "decode") >= 4
    assert sum(move.count for move in moves if move.phase == "prefill") >= 4


def work_until_it_breaks(graph: Graph, spec: BackendSpec, transport: str, stage: str, blow: Blow) -> None:
    """The blow falls as soon as its victim is born, or after some turns of work."""
    decided = split_plan(graph)
    if stage == "start":
        blow.thread.start()
    with launch(graph, decided, spec, transport=transport) as session:
        for turn, _ in enumerate(endless(session, stage)):
            if turn == 3 and stage != "start":
                blow.thread.start()


def run_once(graph: Graph, spec: BackendSpec, limits: Limits | None = None) -> None:
    with launch(graph, split_plan(graph), spec, limits=limits) as session:
        session.run(input_ids=[PROMPT])


def run_on(session: Session) -> None:
    while True:
        session.run(input_ids=[PROMPT], last=True)


@pytest.mark.parametrize("name,role,stage,sent", CASES)
def test_a_killed_or_stopped_process_is_named(
    name: str,
    role: str,
    stage: str,
    sent: signal.Signals,
    zoo: Any,
    tiny: Graph,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judge, "STOPPED_S", 0.2)  # of waiting for the end of a stop there is enough in other tests
    name, _, transport = name.partition("/")
    spec = request.getfixturevalue("fake") if name == "fake" else backend(name)
    assert not missing(spec, 2)
    blow = Blow(zoo, role, sent)
    with pytest.raises(RankError) as caught:
        work_until_it_breaks(tiny, spec, transport or "native", stage, blow)
    assert time.monotonic() - blow.at < LIMIT_S, caught.value
    text = str(caught.value)
    newborn = role == "hydra_pmi_proxy" and stage == "start"  # then mpiexec may be all that was ever seen
    assert re.search("hydra_pmi_proxy|mpiexec" if newborn else role, text), text
    assert ("SIGSTOP" if sent is signal.SIGSTOP else "killed") in text or stage == "start"
    if stage != "start" and role.startswith("rank"):
        assert re.search(rf"running {stage}.*(instruction|segment)|waiting for a request|zeroing states", text), text


@pytest.mark.parametrize("stage", ["join", "load", "compile", "run", "close"])
def test_a_rank_that_raises_is_quoted(
    stage: str, tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", f"1:{stage}:raise")
    if stage == "close":  # too late to matter
        with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake):
            return
    with pytest.raises(RankError, match=r"rank 1 raised ZeroDivisionError while .*: division by zero") as caught:
        run_once(tiny, fake)
    assert "misbehave" in "".join(caught.value.__notes__)


def test_a_rank_that_leaves_shows_its_last_words(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "0:run:exit")
    with pytest.raises(RankError, match=r"rank 0 .* ended by itself \(exit code 7\) while running prefill") as caught:
        run_once(tiny, fake)
    assert "| about to leave" in str(caught.value)


def test_a_stuck_rank_is_named_with_its_instruction(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "1:run:hang")
    expected = r"rank 1 has made no progress for .*running prefill .*instruction 1, %"
    with pytest.raises(RankError, match=expected) as caught:
        run_once(tiny, fake, Limits(stall_s=1.5))
    assert "rank 0" not in str(caught.value)


def test_a_start_that_takes_too_long_says_where_ranks_are(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "1:join:hang")
    with pytest.raises(RankError, match=r"did not start within 2 s .*rank 1: joining the group"):
        launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake, limits=Limits(start_s=2.0))


def test_a_port_that_was_taken_in_between_is_tried_again(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE", "0:join:taken")
    monkeypatch.setenv("FAKE_MARKER", str(tmp_path / "taken"))
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        assert session.probe() == [2.0, 2.0]
    assert (tmp_path / "taken").exists()


@pytest.mark.parametrize("name", ["torch", "tensorflow", "mxnet"])
def test_a_framework_whose_port_is_taken_is_started_again(
    name: str, tiny: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        free = Ports.next
        monkeypatch.setattr(Ports, "next", lambda self: ports.pop() if ports else free(self))
        with launch(tiny, plan(Request(tiny, Mesh(tp=2))), backend(name), isolation="off") as session:
            assert session.probe() == [2.0, 2.0]
        assert ports == []


def test_a_named_port_that_is_in_use_is_refused(tiny: Graph, fake: BackendSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use"):
            launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake, port=port, isolation="off")
        with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake, port=port, isolation="require") as session:
            assert session.probe() == [2.0, 2.0]  # in a namespace of its own it is free


def test_strangers_are_shown_the_door(tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who connects while ranks start, with nonsense or without the key, does not disturb."""
    start = Cluster.start

    def knock(door: Path) -> None:
        hello = bytes(encode(Hello("worker", 0, 1, b"nonce")))
        for words in (b"GET / HTTP/1.1\r\n\r\n", hello, hello + bytes(encode(Proof(b"wrong"))), b""):
            stranger = socket.socket(socket.AF_UNIX)
            stranger.connect(str(door))
            stranger.sendall(words)
            strangers.append(stranger)

    def before_each(processes: Iterable[Process], door: Path) -> Iterator[Process]:
        for process in processes:
            knock(door)
            yield process

    def among_strangers(self: Cluster, processes: Iterable[Process], *rest: Any) -> None:
        start(self, before_each(processes, self.folder / SOCKET), *rest)

    strangers: list[socket.socket] = []
    monkeypatch.setattr(Cluster, "start", among_strangers)
    try:
        with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
            assert session.probe() == [2.0, 2.0]
        assert strangers
    finally:
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("word", ["launching", "turn"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "name", ["fake", "numpy", *(pytest.param(n, marks=pytest.mark.full) for n in ("torch", "tensorflow", "mxnet"))]
)
def test_a_killed_or_interrupted_driver_leaves_nothing(name: str, sent: signal.Signals, word: str, zoo: Any) -> None:
    with Driver(name, "decode") as driver:
        driver.wait_for(word)
        if word == "launching":
            zoo.find("rank 0")
        driver.process.send_signal(sent)
        assert driver.ends_within(30.0)
    assert driver.process.returncode != 0
    assert zoo.left(20.0) == []
    if sent is signal.SIGINT:
        assert driver.last_words().count("Traceback") == 1
        assert driver.last_words().endswith("KeyboardInterrupt")


def test_an_interrupted_call_leaves_the_session_usable(tiny: Graph, fake: BackendSpec) -> None:
    """Ctrl-C while ranks work: their late replies are read before the next request."""
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        session.run(input_ids=[PROMPT], last=True)
        for _ in range(3):
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                run_on(session)
        assert session.probe(2.0) == [4.0, 4.0]
