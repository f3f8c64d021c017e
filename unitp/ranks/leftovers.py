"""What a session may leave on its host, and how it is removed: processes, its folder, segments of shared memory.

The driver clears at the end of a session. A process of its own (`outlive`) does it where the driver cannot: it waits for
the driver's end, by whatever cause, on the driver's pidfd, and on a pipe that an `exec` closes. It depends on no thread of
a rank and on no socket, and what it kills may be stopped, or hold Python's lock for ever. This module is all that process
imports, so it needs the standard library only.

A segment of `/dev/shm` that a framework makes while its ranks join has a name that nobody tells us, and those who know it
may be dead. One of this session is recognised by its maker (the patterns of the backend, this user, since the session
began) and by being abandoned: no process maps it or holds it open. Segments of another session that starts at the same
time are in use.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from unitp.ranks.processes import Seen, end_all

SHARED = Path("/dev/shm")
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LOOKS = 3
PAUSE_S = 0.1
CLOCK_S = 1.0
"""Files are dated by a coarser clock than `time.time`."""


class Leftovers(NamedTuple):
    """What belongs to a session: processes with its `mark`, its `folder`, and what was made in `/dev/shm` since
    it `began` (seconds since the epoch) under a name like one of the patterns in `segments`.
    """

    mark: str
    folder: str
    began: float
    segments: tuple[str, ...] = ()

    def clear(self) -> list[Seen]:
        """End and remove everything; returns the processes that could not be ended."""
        left = end_all(self.mark)
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in abandoned(self.segments, self.began):
            path.unlink(missing_ok=True)
        return left

    def words(self) -> list[str]:
        return [self.mark, self.folder, repr(self.began), *self.segments]


def abandoned(patterns: Iterable[str], began: float, folder: Path = SHARED) -> list[Path]:
    """Files of this user, made since `began` under such a name, that no process maps or holds open."""
    wanted = tuple(patterns)
    made = [path for path in _files(folder) if any(fnmatch(path.name, p) for p in wanted) and _recent(path, began)]
    used = set(_in_use(folder)) if made else set()
    return [path for path in made if str(path) not in used]


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # there is none (any more), or it belongs to somebody else


def _recent(path: Path, began: float) -> bool:
    try:
        about = path.lstat()
    except OSError:
        return False  # it has just been removed
    return about.st_uid == os.getuid() and about.st_ctime >= began - CLOCK_S


def _in_use(folder: Path) -> Iterator[str]:
    """The files of a folder that processes hold open or map. Whoever makes one maps it before it closes it: in this order
    none is missed.
    """
    for process in filter(str.isdigit, os.listdir("/proc")):
        for link in _files(Path("/proc", process, "fd")):
            try:
                yield os.readlink(link)
            except OSError:
                continue  # it has just been closed
        try:
            with open(f"/proc/{process}/maps") as lines:
                yield from (line[line.index("/") :].rstrip() for line in lines if f" {folder}/" in line)
        except OSError:
            continue  # it has just ended, or belongs to somebody else


def outlive() -> None:
    """`sys.argv` is a pidfd of the driver, and the words of `Leftovers`; standard input is a pipe from the driver.

    Returns when the driver is gone and everything is cleared. Processes that were being started then carry no mark yet, so
    it looks again.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    driver, mark, folder, began, *segments = sys.argv[1:]
    poller = select.poll()
    poller.register(int(driver), select.POLLIN)
    poller.register(0, select.POLLIN)
    poller.poll()
    left = Leftovers(mark, folder, float(began), tuple(segments))
    for _ in range(LOOKS):
        left.clear()
        time.sleep(PAUSE_S)
