"""How a process of a session ended: its exit code, in words, and whether another death caused it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from unitp.host import remedy
from unitp.ranks.folder import SHARED_MEMORY, room
from unitp.ranks.member import Member
from unitp.ranks.processes import Seen
from unitp.ranks.serve import NO_MEMORY


class Watched(NamedTuple):
    """A process under watch. `member` is set if the driver started it itself."""

    name: str
    seen: Seen
    member: Member | None
    launcher: bool


def exit_code(one: Watched, now: Seen | None) -> int | None:
    """The exit code (or minus the signal) of a dead process, as far as it is known for another process's child."""
    if one.member is not None:
        return one.member.exit_code()
    if now is None or now.started != one.seen.started:
        return None
    return os.waitstatus_to_exitcode(now.status)


def consequence(death: tuple[Watched, int | None]) -> int:
    """A sort key of deaths by how likely another death caused them. Of equal ones the first stays first.

    Nobody in a session kills the launcher that the driver started, and a killed process does not end by itself.
    """
    one, code = death
    if one.launcher and one.member is not None and code is not None and code < 0:
        return 0
    return 1 if code is None or code < 0 else 2


def how_it_ended(code: int | None) -> str:
    """The words for an exit code as subprocess gives it: negative for a signal, None where the code is not known."""
    if code is None:
        return "was killed, or ended by itself"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    if code == NO_MEMORY:
        return "ran out of memory (not even a report was possible)"
    return f"ended by itself (exit code {code})"


def lacking(code: int | None, logs: str, folders: Iterable[Path]) -> str:
    """Return what the host may have lacked when a process ended, and how to mend it; empty if nothing tells.

    That is room for a page of a mapped file in one of `folders` or in shared memory (a bus error), or what the logs say.
    """
    if code == -signal.SIGBUS or "Bus error" in logs:  # the latter is how MPICH tells it
        places = room([SHARED_MEMORY, *folders])
        return (
            f"A file in memory had no room to grow: {places}. Free some, or give it more (docker run --shm-size=256m)."
        )
    return remedy(logs)
