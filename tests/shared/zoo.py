"""What a test may leave: processes that inherited its mark, segments of shared memory, files in temporary folders, ports."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from unitp.ranks.leftovers import abandoned
from unitp.ranks.processes import Seen, look

MARK = "UNITP_TEST"
LISTENS = "0A"
TEMPORARY = ("/tmp", "/var/tmp")
MAKERS = ("hydra*", "mpi*", "ompi*", "pmi*", "ucx*", "torch*", "gloo*", "tf*", "tensorflow*", "mxnet*")
"""Names of what MPI and the frameworks put into temporary folders whose names they do not take from TMPDIR."""


def marked_by(mark: str) -> dict[int, dict[str, str]]:
    """The environments of all live processes that a test started, by process number."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            raw = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        seen = look(pid) if mark.encode() in raw else None
        if seen is not None and seen.alive and pid != os.getpid():
            pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0"))
            found[pid] = {name: value for name, _, value in pairs}
    return found


class Zoo:
    """The processes that were started under a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def find(self, name: str, limit_s: float = 20.0) -> Seen:
        """The process called so ("rank 1", "server 0", "supervisor", "mpiexec", "hydra_pmi_proxy"), waiting for it to appear."""
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
        return seen.command, f"{'rank' if role == 'worker' else role} {number}".strip()

    def left(self, limit_s: float = 5.0) -> list[str]:
        """The processes that are still alive after a while."""
        deadline = time.monotonic() + limit_s
        while (alive := marked_by(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return [f"{pid} {environment.get('UNITP_ROLE', '')}" for pid, environment in alive.items()]


class Surroundings:
    """What was there when it was made. Files count as left where no process has them open: others may run beside this test."""

    def __init__(self) -> None:
        self.began = time.time()
        self.ports = listening(os.getpid())

    def left(self, limit_s: float = 5.0) -> list[str]:
        """The segments, files and ports of this process that are there in addition, after a while."""
        deadline = time.monotonic() + limit_s
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _found(self) -> list[str]:
        files = [
            *abandoned(("*",), self.began),
            *(f for at in TEMPORARY for f in abandoned(MAKERS, self.began, Path(at))),
        ]
        return [*map(str, files), *(f"port {port}" for port in sorted(listening(os.getpid()) - self.ports))]


def listening(pid: int) -> set[int]:
    """The TCP ports at which a process listens."""
    return {port for _, port in listeners(pid)}


def listeners(pid: int) -> set[tuple[str, int]]:
    """Where a process listens in its network namespace: TCP addresses with ports, and abstract Unix sockets ("@name", 0)."""
    try:
        return _listeners(Path("/proc", str(pid)))
    except FileNotFoundError:
        return set()  # it has just ended


def _listeners(process: Path) -> set[tuple[str, int]]:
    mine = set()
    for link in (process / "fd").iterdir():
        try:
            mine.add(os.readlink(link))
        except OSError:
            continue  # the folder's own
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in mine:
                address, _, port = fields[1].rpartition(":")
                found.add((numeric(address), int(port, 16)))
    for line in (process / "net" / "unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("@") and f"socket:[{fields[6]}]" in mine:
            found.add((fields[7], 0))
    return found


def numeric(address: str) -> str:
    """An address as the kernel's tables write it, words of 32 bits in hexadecimal, in the usual form."""
    words = [int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))
