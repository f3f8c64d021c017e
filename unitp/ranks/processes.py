"""The processes of a session, read from /proc: which carry its mark, which state they are in, and how to end them all.

A mark is an environment variable that names the session. It is not a secret. Children inherit it, so the proxies of
launchers and helpers of frameworks are found too, however they were started. A process is identified by its number and
start time, because numbers are reused.
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
    """A process from /proc/<pid>/stat: `state` is R, S, D, T (stopped) or Z (ended); `status` is that of wait."""

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
    """A process with the mark, its role, and its number within the role (None for mpiexec and its proxies)."""

    seen: Seen
    role: str
    number: int | None
    worker: bool


def look(pid: int) -> Seen | None:
    """The state of a process now, or None if it does not exist."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    command, cpu_s = head.partition("(")[2], (int(fields[11]) + int(fields[12])) / TICKS
    return Seen(pid, int(fields[1]), int(fields[19]), fields[0], command, int(fields[49]), cpu_s)


def marked(mark: str) -> dict[int, Marked]:
    """All live processes with the mark of this session."""
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
    """Send SIGKILL, unless the number now belongs to another process."""
    now = look(seen.pid)
    if now is not None and now.started == seen.started:
        try:
            os.kill(seen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def end_all(mark: str, limit_s: float = 10.0) -> list[Seen]:
    """Kill the processes with the mark until none is found. Returns those that are left after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while left := [found.seen for found in marked(mark).values()]:
        if time.monotonic() > deadline:
            return left
        for seen in left:
            kill(seen)
        time.sleep(0.01)
    return []
