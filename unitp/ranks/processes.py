"""The processes of a session as /proc shows them: who carries its mark, in which state they are, and how all of them
are ended.

A mark is an environment variable that names the session; it is no secret; children inherit it, so launchers' proxies and helpers of
a framework are found too, however they were started. A process is known by number and start time: numbers are used
again.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from unitp.ranks.environment import MARK, ROLE, number_of
from unitp.ranks.worker_command import ENTRY

TICKS = os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """A line of /proc/<pid>/stat: `state` is R, S, D, T (stopped), Z (ended); `status` is that of wait."""

    pid: int
    parent: int
    started: int
    state: str
    command: str
    status: int
    cpu_s: float

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"

    @property
    def stopped(self) -> bool:
        return self.state == "T"  # not t: somebody looks at it with a debugger or a profiler


class Marked(NamedTuple):
    """A process with the mark: its role, and its number where it has one (a rank; None for mpiexec and its proxies)."""

    seen: Seen
    role: str
    number: int | None
    worker: bool


def look(pid: int) -> Seen | None:
    """The process as it is now, or None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    command, cpu_s = head.partition("(")[2], (int(fields[11]) + int(fields[12])) / TICKS
    return Seen(pid, int(fields[1]), int(fields[19]), fields[0], command, int(fields[49]), cpu_s)


def marked(mark: str) -> dict[int, Marked]:
    """All live processes that carry the mark of this session."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            raw = Path(f"/proc/{entry}/environ").read_bytes()
            if wanted not in raw:
                continue
            worker = ENTRY.encode() in Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue  # it ended in between, or belongs to somebody else
        seen = look(int(entry))
        if seen is not None and seen.alive:
            pairs = (item.partition(b"=") for item in raw.split(b"\0"))
            environment = {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
            found[seen.pid] = Marked(seen, environment.get(ROLE, ""), number_of(environment), worker)
    return found


def kill(seen: Seen) -> None:
    """SIGKILL, unless the number belongs to another process by now."""
    now = look(seen.pid)
    if now is not None and now.started == seen.started:
        try:
            os.kill(seen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def end_all(mark: str, limit_s: float = 10.0) -> list[Seen]:
    """Kill every process with the mark, until none is found; returns what was left after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while left := [found.seen for found in marked(mark).values()]:
        if time.monotonic() > deadline:
            return left
        for seen in left:
            kill(seen)
        time.sleep(0.01)
    return []
