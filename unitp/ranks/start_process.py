"""Starting one process of a session: what it is called, where it logs, and what it finds in its environment.

Its current folder is the session's, because libraries look for files in the current folder (ucx.conf), and those in the
driver's folder are not meant for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unitp.plugins.spec import Process
from unitp.ranks.environment import for_process
from unitp.ranks.isolation import Isolation
from unitp.ranks.member import Member, no_forks


class Names(NamedTuple):
    """What a process is called: `name` and `number` (None for a launcher), and for it or its ranks, files and progress pages."""

    name: str
    number: int | None
    files: tuple[str, ...]
    pages: tuple[str, ...]


def names_of(process: Process, number: int) -> Names:
    """Return the names of the process with this number among those of its role. A launcher is called as its program is."""
    if process.role != "worker":
        return Names(f"{process.role} {number}", number, (f"{process.role}{number}",), (f"{process.role} {number}",))
    files = tuple(f"rank{rank}" for rank in process.ranks)
    pages = tuple(f"rank {rank}" for rank in process.ranks)
    if process.argv:
        return Names(Path(process.argv[0]).name, None, files, pages)
    return Names(pages[0], process.ranks[0], files, pages)


def start(
    process: Process,
    names: Names,
    worker: Sequence[str],
    isolation: Isolation,
    *,
    folder: Path,
    mark: str,
    threads: int,
) -> Member:
    """Start a process, isolated where possible. Without arguments of its own it is a worker by this command."""
    logs = [folder / f"{file}.log" for file in dict.fromkeys([names.name.replace(" ", ""), *names.files])]
    environment = for_process(
        os.environ,
        process.env,
        mark=mark,
        role=process.role,
        number=names.number,
        folder=str(folder),
        threads=threads,
    )
    with open(logs[0], "ab") as log, no_forks:
        started = subprocess.Popen(
            isolation.inside([*process.argv, *worker]),
            env=environment,
            pass_fds=isolation.descriptors,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Member(names.name, "launcher" if process.argv else process.role, started, logs, process.ranks)
