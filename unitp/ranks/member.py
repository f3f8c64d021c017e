"""A process that the driver started itself: a rank, a server, or a launcher such as mpiexec with ranks under it.

If another thread forks while `Popen` starts a program, the fork inherits the pipe by which `Popen` learns that the
program runs, and `Popen` returns only when the fork ends. So forks wait: the lock `no_forks` is held while something is
made that a fork should not inherit unnoticed.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

FIRST_LINES = 4
LAST_LINES = 6
PATIENCE_S = 5.0

no_forks = threading.RLock()
os.register_at_fork(before=no_forks.acquire, after_in_parent=no_forks.release, after_in_child=no_forks.release)


class Member:
    """A process of the session. `name` identifies it in errors, `role` is its role or "launcher", `logs` are its and its ranks'."""

    def __init__(
        self, name: str, role: str, process: subprocess.Popen[bytes], logs: Sequence[Path], ranks: tuple[int, ...]
    ) -> None:
        self.name, self.role, self.process, self.logs, self.ranks = name, role, process, tuple(logs), ranks

    def exit_code(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it. It waits, as the process is known to be dead."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return None

    def reap(self) -> None:
        """Wait for the killed process, so that no zombie is left."""
        self.exit_code()

    def tail(self) -> str:
        """The first and last lines of each log, indented. The cause is at the beginning, its effects follow."""
        texts = [log.read_text(errors="replace") for log in self.logs if log.exists()]
        return "".join(f"\n  | {line}" for text in texts for line in _ends(text.splitlines()))


def _ends(lines: list[str]) -> list[str]:
    left_out = len(lines) - FIRST_LINES - LAST_LINES
    if left_out < 2:
        return lines
    return [*lines[:FIRST_LINES], f"... {left_out} more lines ...", *lines[-LAST_LINES:]]
