"""How the ranks start: one directly, several under MPICH's mpiexec, on this host only.

mpiexec forks them. Left to itself it would ask what it finds in the environment, in `~/.mpiexec.hydra.conf` or in
`mpiexec.hydra.conf` of the system: Slurm's `srun`, or other hosts by ssh. It binds nothing, so that the kernel can move a
rank to a free core.

`-disable-auto-cleanup` lets the other ranks live when one dies, so that they can report. Ranks talk through shared
memory (`UCX_TLS`), which opens no port. A rank that waits sleeps a microsecond now and then (`PROGRESS_THROTTLE`):
where ranks are more than the free cores, spinning makes a collective ten times slower (0.8 ms instead of 0.08, 4
ranks on 2 cores), and `sched_yield` does not help.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from unitp.cpus import allowed
from unitp.errors import BackendError
from unitp.mesh import Mesh
from unitp.plugins.spec import Process

HERE = (
    *("-launcher", "fork", "-rmk", "user", "-hosts", "localhost", "-bind-to", "none"),
    *("-iface", "lo", "-localhost", "127.0.0.1"),
)


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    ranks = tuple(range(mesh.size))
    if mesh.size == 1:
        return [Process("worker", ranks)]
    crowded = mesh.size > len(allowed())
    env = {
        "HYDRA_CONFIG_FILE": os.devnull,
        "UCX_TLS": "self,sm",
        "UCX_NET_DEVICES": "lo",
        "FI_PROVIDER": "tcp",
        "FI_TCP_IFACE": "lo",
        "HWLOC_XMLFILE": "",  # else Hydra's proxy writes the topology to /tmp, and leaves it there where it is killed
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "100" if crowded else "1000",
    }
    return [Process("worker", ranks, (mpiexec(), *HERE, "-disable-auto-cleanup", "-n", str(mesh.size)), env)]


def mpiexec() -> str:
    """Return the path of MPICH's launcher: beside the interpreter, where its wheel puts it, or in a folder of PATH (absolute).

    Raises BackendError if it is in neither.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    folders = os.pathsep.join(filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep)))
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpiexec", path=folders)
    if found is None:
        raise BackendError(
            "several ranks over MPI need mpiexec, which is neither beside the interpreter nor on PATH",
            hint='pip install "unitp-mpi[mpi]"',
        )
    return os.path.abspath(found)
