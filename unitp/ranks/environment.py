"""The environment variables of a session's processes: the mark that identifies them, their number, and their threads.

A process gets only these variables of the driver's environment: `KEPT`, and those that its backend passes on
(`BackendSpec.passes`). In addition the backend sets some (`Process.env`), and the user's settings file adds others.
Schedulers, launchers, OpenMP and the frameworks read hundreds of variables, which were meant for another program or for
the driver alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from unitp.errors import InputError

MARK = "UNITP_SESSION"
ROLE = "UNITP_ROLE"
NUMBER = "UNITP_NUMBER"
FOLDER = "UNITP_FOLDER"
FOLDER_PREFIX = "unitp-"

LAUNCHERS = (NUMBER, "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "RANK")
"""Where a process finds its number: from unitp's launcher, else MPICH, PMIx, Open MPI, Slurm, torchrun."""

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)

KEPT = (
    *("HOME", "USER", "LOGNAME", "TZ", "LANG", "LANGUAGE", "LC_*"),
    *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH"),
    *("PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
"""What every process keeps: who and where the user is, and where programs, libraries and modules are found."""

SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


def chosen(base: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """The variables of `base` with these names (`LC_*` means a prefix). The current folder is removed from search paths."""
    found = {name: base[name] for name in base if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return found | {name: without_current_folder(found[name]) for name in SEARCH_PATHS if name in found}


def without_current_folder(path: str) -> str:
    """A search path with full names, without the current folder (which an empty entry or `.` means)."""
    here = os.readlink("/proc/self/cwd")  # os.getcwd() fails where it is deleted
    given = [(entry, os.path.normpath(os.path.join(here, entry))) for entry in path.split(os.pathsep)]
    return os.pathsep.join(full for entry, full in given if os.path.isabs(entry) or full != here)


def number_of(environment: Mapping[str, str]) -> int | None:
    """The number of a process within its role (for a worker its rank), from its environment, or None if it has none."""
    for name in LAUNCHERS:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None


def own_number(environment: Mapping[str, str]) -> int:
    """Return the rank of this process, from its environment. Raises InputError if the launcher did not set one."""
    number = number_of(environment)
    if number is None:
        raise InputError("the launcher did not say which rank this is", hint=f"It sets one of {', '.join(LAUNCHERS)}.")
    return number


def for_process(
    base: Mapping[str, str],
    own: Mapping[str, str],
    *,
    mark: str,
    role: str,
    number: int | None,
    folder: str,
    threads: int,
) -> dict[str, str]:
    """The environment of a process: what is kept of `base`, the threads, `own` variables and the session's mark.

    `own` are those of the backend and the user.
    """
    kept = chosen(base, KEPT) | {name: str(threads) for name in THREADS}
    kept["MALLOC_ARENA_MAX"] = "1"  # freed memory of one thread serves another: 6 to 10 MB a rank (glibc)
    kept |= {"PYTHONUNBUFFERED": "1", "TMPDIR": folder, **own, MARK: mark, ROLE: role, FOLDER: folder}
    if number is not None:
        kept[NUMBER] = str(number)
    return kept
