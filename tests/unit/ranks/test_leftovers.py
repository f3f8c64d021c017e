"""Which files of shared memory count as a dead session's: by maker and date, and only those that nobody uses."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

from unitp.ranks.leftovers import abandoned


def make(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(bytes(mmap.PAGESIZE))
    return path


def test_only_files_under_such_a_name_count(tmp_path: Path) -> None:
    ours, _ = make(tmp_path, "mpich_shm_1_0"), make(tmp_path, "sem.somebody")
    assert abandoned(("mpich_*", "ucx_*"), time.time(), tmp_path) == [ours]
    assert abandoned((), time.time(), tmp_path) == []


def test_files_from_before_the_session_do_not_count(tmp_path: Path) -> None:
    make(tmp_path, "mpich_shm_1_0")
    assert abandoned(("mpich_*",), time.time() + 10, tmp_path) == []


def test_a_file_that_is_open_or_mapped_is_in_use(tmp_path: Path) -> None:
    opened, mapped, dead = (make(tmp_path, f"mpich_{name}") for name in ("opened", "mapped", "dead"))
    with opened.open("rb"):
        with mapped.open("r+b") as file:
            pages = mmap.mmap(file.fileno(), 0)
        assert abandoned(("mpich_*",), time.time(), tmp_path) == [dead]
        pages.close()
    assert set(abandoned(("mpich_*",), time.time(), tmp_path)) == {opened, mapped, dead}


def test_a_host_without_shared_memory_has_no_leftovers(tmp_path: Path) -> None:
    assert abandoned(("*",), 0.0, tmp_path / "nowhere") == []
