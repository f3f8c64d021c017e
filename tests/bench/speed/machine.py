"""The machine and what is installed on it, and how much of it others take while it is measured."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import msgspec

from unitp.ranks.processes import TICKS, look

PACKAGES = ("numpy", "torch", "tensorflow-cpu", "tensorflow", "mxnet", "numba", "mpi4py", "xllamacpp", "transformers")
LOOK_S = 0.2
"""Ticks of processor time come 100 times a second."""


class Machine(msgspec.Struct, frozen=True):
    """What figures were taken on."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    date: str


def this() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor(),
        len(os.sched_getaffinity(0)),
        round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        f"{platform.system()} {platform.release().partition('-')[0]}",
        platform.python_version(),
        {name: found for name in PACKAGES if (found := installed(name))},
        time.strftime("%Y-%m-%d"),
    )


def processor() -> str:
    """The processor's name, and the widest vectors that it has."""
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in about.get("flags", "").split()), "")
    return " ".join(filter(None, (about.get("model name", platform.machine()), vectors)))


def installed(name: str) -> str:
    """The installed version of a distribution, or an empty text."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


class Taken(NamedTuple):
    """Parts of all processors, 0 to 1, while nothing is asked for: what others take, and what the measured processes do."""

    others: float
    measured: float


def taken(pids: Sequence[int] = ()) -> Taken:
    """What was taken within a moment in which nothing is asked of these processes, which are measured."""
    begun, own_begun = ticks(), own_ticks(pids)
    time.sleep(LOOK_S)
    busy, whole = (b - a for a, b in zip(begun, ticks(), strict=True))
    own = min(own_ticks(pids) - own_begun, busy)
    return Taken((busy - own) / whole, own / whole) if whole else Taken(0.0, 0.0)


def own_ticks(pids: Sequence[int]) -> int:
    """Processor time of these processes since their start; of one that has ended, none."""
    return round(sum(seen.cpu_s for pid in pids if (seen := look(pid))) * TICKS)


def ticks() -> tuple[int, int]:
    """Processor time of all processors since the start: busy (or taken by the host), and altogether."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return sum(fields) - idle - waiting, sum(fields)


def pinning(pids: Iterable[int]) -> str:
    """On which processors these processes may run, as Linux lists them: `0-1` if none is bound to one."""
    found = {
        line.partition(":")[2].strip()
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("Cpus_allowed_list")
    }
    return ", ".join(sorted(found))
