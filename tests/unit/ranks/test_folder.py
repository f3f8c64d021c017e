"""Where a session's folder is made, what is said where that cannot be, and that its files have room before they are mapped."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.errors import HostError, InputError
from unitp.host import at_host, host_error, remedy, writing
from unitp.ranks.folder import LONGEST, new_folder, room
from unitp.ranks.member import FIRST_LINES, LAST_LINES, Member
from unitp.ranks.progress import Page
from unitp.ranks.serve import failure
from unitp.wire.arrays import Outbox


@contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    """Meanwhile this process may not have more of something."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def test_it_is_private_and_lies_where_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = new_folder()
    assert made.parent == tmp_path
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_relative_tmpdir_holds_for_processes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", ".")
    assert new_folder().parent == tmp_path


@pytest.mark.parametrize("longer", [0, 1, 20, 150])
def test_a_path_that_is_too_long_for_a_socket_is_left(
    longer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """107 bytes are the most that the path of a socket may have."""
    wanted = Path("/tmp") / ("y" * (LONGEST - len("/tmp//unitp-12345678") + longer))
    monkeypatch.setenv("TMPDIR", str(wanted))
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix, dir: f"{dir}/{prefix}12345678")
    made = new_folder()
    assert (made.parent == wanted) == (longer == 0)
    assert len(os.fsencode(made / "driver.sock")) <= 107


@pytest.mark.parametrize("name", ["TMPDIR", "TEMP", "TMP"])
@pytest.mark.parametrize("place, error", [("absent", "ENOENT"), ("file", "ENOTDIR"), ("file/below", "ENOTDIR")])
def test_a_tmpdir_that_cannot_serve_is_told(
    name: str, place: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for other in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path / place))
    with pytest.raises(HostError, match=rf"{tmp_path / place} \({name}\): .*{error}") as caught:
        new_folder()
    assert caught.value.exit_code == 3
    assert "TMPDIR" in caught.value.hint


def test_a_page_has_its_room_before_it_is_mapped(tmp_path: Path) -> None:
    """A file that is only truncated to its size kills whoever writes to it on a full disk (SIGBUS)."""
    Page(tmp_path / "page", create=True)
    assert (tmp_path / "page").stat().st_blocks > 0


@pytest.mark.parametrize(
    "make", [lambda path: Page(path, create=True), lambda path: Outbox(path, inline=8).put(np.zeros(1000))]
)
def test_files_that_cannot_grow_are_an_error_with_number_and_path(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with limited(resource.RLIMIT_FSIZE, 16), pytest.raises(HostError) as caught:
        make(path)
    assert str(path) in caught.value.message
    assert "EFBIG" in caught.value.message
    assert "ulimit -f" in caught.value.hint


def test_room_is_told_in_words(tmp_path: Path) -> None:
    text = room([tmp_path, tmp_path / "absent"])
    assert text.startswith(f"{tmp_path} has ")
    assert "MiB free of" in text
    assert "absent" not in text


def test_what_is_written_tells_mistakes_from_shortages(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"cannot write the plan .*absent/x: No such file"),
        writing(tmp_path / "absent" / "x", "the plan"),
    ):
        (tmp_path / "absent" / "x").write_text("")
    with pytest.raises(HostError, match=r"/dev/full: No space left on device \(ENOSPC\)"), writing("/dev/full"):
        Path("/dev/full").write_text("x")


def test_a_time_limit_of_the_caller_comes_out_as_itself() -> None:
    with pytest.raises(TimeoutError, match="mine"), at_host("work"):
        raise TimeoutError("mine")


def test_shortages_are_recognised_in_what_libraries_say() -> None:
    assert "ulimit -n" in remedy("[gloo] socket: Too many open files")
    assert "ulimit -n" in failure(RuntimeError("accept: Too many open files")).hint
    assert remedy("all is well") == ""
    assert host_error(OSError("no number")).message == "no number"


def test_the_first_lines_of_a_log_are_shown_with_the_last(tmp_path: Path) -> None:
    """What comes first is the cause; what comes last tells where it ended."""
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    other.write_text("short\n")
    shown = Member("rank 0", "worker", None, [log, other, tmp_path / "absent"], (0,)).tail().splitlines()[1:]  # type: ignore[arg-type]
    kept = [*range(FIRST_LINES), *range(100 - LAST_LINES, 100)]
    left_out = f"  | ... {100 - len(kept)} more lines ..."
    lines = [f"  | line {n}" for n in kept]
    assert shown == [*lines[:FIRST_LINES], left_out, *lines[FIRST_LINES:], "  | short"]
