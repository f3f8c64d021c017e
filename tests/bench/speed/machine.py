"""The machine and what is installed on it, and how much of it others take while it is measured."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

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
        f"{platform.system()} {platform.release()}",
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


def taken() -> float:
    """The part of all processors, 0 to 1, that was taken within a moment in which nothing that is measured is asked for."""
    begun = ticks()
    time.sleep(LOOK_S)
    busy, whole = (b - a for a, b in zip(begun, ticks(), strict=True))
    return busy / whole if whole else 0.0


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
