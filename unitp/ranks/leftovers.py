"""What a session may leave on its host, and how it is removed: processes, its folder, segments of shared memory.

The driver cleans up at the end of a session. Where the driver cannot, a separate process (`outlive`) does. It notices the
driver's end, whatever the cause, by the driver's pidfd and by a pipe that an `exec` closes. It depends on no thread of a
rank and on no socket, and what it kills may be stopped or hold Python's lock forever. That process imports only this
module, so the module needs the standard library alone.

A segment of `/dev/shm` that a framework makes while its ranks join has a name that the framework does not tell, and the
processes that know it may be dead. A segment of this session is recognised by its maker (the backend's patterns, this
user, since the session began) and because no process maps it or holds it open. Segments of another session that starts
at the same time are in use.
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
    """What belongs to a session: processes with its `mark`, its `folder`, and its shared memory.

    Its shared memory are files in `/dev/shm` that match a pattern of `segments` and were made since it `began` (seconds
    since the epoch).
    """

    mark: str
    folder: str
    began: float
    segments: tuple[str, ...] = ()

    def clear(self) -> list[Seen]:
        """End all processes and remove all files. Returns the processes that could not be ended."""
        left = end_all(self.mark)
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in abandoned(self.segments, self.began):
            path.unlink(missing_ok=True)
        return left

    def words(self) -> list[str]:
        """The command-line arguments from which `outlive` makes an equal value."""
        return [self.mark, self.folder, repr(self.began), *self.segments]


def abandoned(patterns: Iterable[str], began: float, folder: Path = SHARED) -> list[Path]:
    """This user's files that match the patterns, were made since `began`, and that no process maps or holds open."""
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
    """The files of a folder that processes hold open or map.

    A process maps a file before it closes it. Descriptors are read before maps, so no file is missed.
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
    """Wait for the end of the driver, then remove everything.

    `sys.argv` has a pidfd of the driver and the words of `Leftovers`; standard input is a pipe from the driver. Processes
    that were just being started may not carry the mark yet, so it looks a second time.
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
