"""The proof that tests leave nothing: what a test marked `system` starts inherits a mark of that test; afterwards no process
with it may be alive, and no folder of a session may be left.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from unitp.runtime.processes import Seen, look

MARK = "UNITP_TEST"

settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", deadline=None)
settings.load_profile("quick")
"""Examples have no limit of time. Under `quick`, tests that take long try a part of theirs (tests/shared/budget.py)."""


def marked_by(mark: str) -> dict[int, dict[str, str]]:
    """The environments of all live processes that a test started, by process number."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            raw = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        seen = look(pid) if f"{MARK}={mark}".encode() in raw else None
        if seen is not None and seen.alive and pid != os.getpid():
            pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0"))
            found[pid] = {name: value for name, _, value in pairs}
    return found


class Zoo:
    """The processes that were started under a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def find(self, name: str, limit_s: float = 20.0) -> Seen:
        """The process called so ("rank 1", "server 0", "mpiexec", "hydra_pmi_proxy"), waiting for it to appear."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for pid, environment in marked_by(self.mark).items():
                seen = look(pid)
                if seen is not None and name in self._names(seen, environment):
                    return seen
            time.sleep(0.005)
        raise AssertionError(f"{name} did not appear")

    def _names(self, seen: Seen, environment: dict[str, str]) -> tuple[str, ...]:
        number = environment.get("UNITP_NUMBER", environment.get("PMI_RANK", ""))
        role = environment.get("UNITP_ROLE", "")
        return seen.command, f"{'rank' if role == 'worker' else role} {number}"

    def left(self, limit_s: float = 5.0) -> list[str]:
        """The processes that are still alive after a while."""
        deadline = time.monotonic() + limit_s
        while (alive := marked_by(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return [f"{pid} {environment.get('UNITP_ROLE', '')}" for pid, environment in alive.items()]


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_counts() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that: tests of Ctrl-C would hang."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def watched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Zoo]:
    """Marks what is started meanwhile, and proves afterwards that neither a process nor a folder is left."""
    mark = uuid.uuid4().hex
    folder.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    zoo = Zoo(mark)
    yield zoo
    assert zoo.left() == []
    assert list(folder.iterdir()) == []


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Zoo]:
    """What the present test starts."""
    yield from watched(monkeypatch, tmp_path / "sessions")


@pytest.fixture(scope="session")
def watched_for_long(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[Zoo]]:
    """For fixtures that many tests share: inside, what is started is marked; on leaving, nothing of it may be left."""

    @contextmanager
    def watch() -> Iterator[Zoo]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            yield from watched(monkeypatch, tmp_path_factory.mktemp("shared") / "sessions")

    return watch


@pytest.fixture(scope="module")
def zoo_of_module(watched_for_long: Callable[[], AbstractContextManager[Zoo]]) -> Iterator[Zoo]:
    """What fixtures of a module start."""
    with watched_for_long() as zoo:
        yield zoo


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> None:
    """Every test that starts processes is watched."""
    if request.node.get_closest_marker("system"):
        request.getfixturevalue("zoo")
