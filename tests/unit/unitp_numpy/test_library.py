"""Compiled kernels are made once, kept for this processor and user, and done without where they cannot be had."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec
import pytest
from unitp_numpy.kernels import library

import unitp
from unitp.errors import BackendWarning
from unitp.mesh import Mesh
from unitp.testing.models import tiny


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "unitp" / "kernels"


def fake(dtype: str) -> None:
    """Put an object file where the compiled one would be."""
    file = library.path(dtype)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.msgpack.encode(library.Compiled("run", b"code")))
    file.chmod(0o600)


def test_they_are_compiled_once(cache: Path) -> None:
    told: list[str] = []
    assert library.missing() == ["float32", "float64"]
    fake("float64")
    assert library.prepare(sys.executable, os.environ, told.append) == ""
    assert told == ["compiling kernels for this processor, once (20 s)"]
    assert library.missing() == []
    assert library.prepare(sys.executable, os.environ, told.append) == ""
    assert len(told) == 1
    assert callable(library.load.__wrapped__("float32"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in cache.iterdir())


def test_an_interpreter_of_its_own_compiles_for_itself(cache: Path, tmp_path: Path) -> None:
    for dtype in library.DTYPES:
        fake(dtype)
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    assert library.prepare(str(other), os.environ, lambda text: None) == ""


@pytest.mark.parametrize("harm", ["damaged", "writable by others", "a link"])
def test_what_is_damaged_or_not_only_ours_is_not_loaded(cache: Path, tmp_path: Path, harm: str) -> None:
    fake("float32")
    assert library.missing() == ["float64"]
    file = library.path("float32")
    if harm == "damaged":
        file.write_bytes(file.read_bytes()[:-3])
    elif harm == "writable by others":
        file.chmod(0o622)
    else:
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    assert library.missing() == ["float32", "float64"]
    with pytest.raises(library.Missing):
        library.load.__wrapped__("float32")


@pytest.mark.parametrize("changed", ["versions", "processor"])
def test_another_version_or_processor_has_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    before = library.path("float32")
    monkeypatch.setattr(library, changed, lambda: "another")
    assert library.path("float32") != before


def test_without_numba_nothing_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(library, "version", absent)
    assert library.prepare(sys.executable, os.environ, pytest.fail) == ""
    assert not cache.exists()


@pytest.mark.system
def test_a_cache_that_cannot_be_written_is_told_and_numpy_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = tiny()
    with (
        pytest.warns(
            BackendWarning, match=r"half the speed: .*file/unitp/kernels cannot be written \(Not a directory\)"
        ),
        unitp.launch(model, unitp.plan(model, Mesh(tp=1))) as session,
    ):
        assert len([*session.generate([1, 2, 3], 4, ignore_eos=True)]) == 4
