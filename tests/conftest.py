"""The proof that tests leave nothing: what a test marked `system` starts inherits a mark of that test; afterwards no process
with it may be alive, and no folder of a session, segment of shared memory, temporary file or listening port may be left.

Ranks inherit little, but know the folder of their session, whose path has the mark in it, too.
"""

from __future__ import annotations

import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from zoo import MARK, Surroundings, Zoo

from unitp.testing.models import write_huggingface

settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", deadline=None)
settings.load_profile("quick")
"""Examples have no limit of time. Under `quick`, tests that take long try a part of theirs (tests/shared/budget.py)."""


@pytest.fixture(scope="session", autouse=True)
def settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests may have settings of their own. What is tested are the frameworks' own runtimes, unless a test says so."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        monkeypatch.setenv("UNITP_TRANSPORT", "native")
        yield


@pytest.fixture(scope="session", autouse=True)
def compiler_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Parts of torch make a folder for its compiler when they are imported, in /tmp and for good. Tests import them in this process, at
    any time, and the folder would count as left by whatever test is watched then. Ranks make theirs in the folder of their session.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_counts() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that: tests of Ctrl-C would hang."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def watched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Zoo]:
    """Marks what is started meanwhile, and proves afterwards that nothing is left."""
    mark, surroundings = uuid.uuid4().hex[:12], Surroundings()
    folder = folder.with_name(mark)
    folder.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    zoo = Zoo(mark)
    yield zoo
    assert zoo.left() == []
    assert list(folder.iterdir()) == []
    assert surroundings.left() == []


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model in a Hugging Face directory, without a tokenizer."""
    return str(write_huggingface(tmp_path_factory.mktemp("models") / "tiny"))


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
