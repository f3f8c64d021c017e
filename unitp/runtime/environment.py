"""The environment variables of a session's processes: the mark by which they are found, who they are, how many
threads they use.
"""

from __future__ import annotations

from collections.abc import Mapping

from unitp.errors import InputError

TOKEN = "UNITP_SESSION"
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


def number_of(environment: Mapping[str, str]) -> int | None:
    """The number of the process with this environment among those of its role (its rank), or None."""
    for name in LAUNCHERS:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None


def own_number(environment: Mapping[str, str]) -> int:
    number = number_of(environment)
    if number is None:
        raise InputError("the launcher did not say which rank this is", hint=f"It sets one of {', '.join(LAUNCHERS)}.")
    return number


def for_process(
    base: Mapping[str, str],
    own: Mapping[str, str],
    *,
    token: str,
    role: str,
    number: int | None,
    folder: str,
    threads: int,
) -> dict[str, str]:
    """`base` without what would mislead a worker, the threads, what the backend wants (`own`), and the mark of the
    session.
    """
    kept = {name: value for name, value in base.items() if name not in (*LAUNCHERS, TOKEN, ROLE)}
    kept |= {name: str(threads) for name in THREADS}
    kept.setdefault("MALLOC_ARENA_MAX", "1")  # freed memory of one thread serves another: 6 to 10 MB a rank (glibc)
    kept |= {"PYTHONUNBUFFERED": "1", "TMPDIR": folder, **own, TOKEN: token, ROLE: role, FOLDER: folder}
    if number is not None:
        kept[NUMBER] = str(number)
    return kept
