"""The CPUs that ranks may use: those allowed to the driver, even if a library has bound the driver since.

An OpenMP runtime that reads OMP_PROC_BIND (or a similar variable) binds the thread that loads it to one CPU, and processes
inherit that: `import torch` in the driver would put all ranks on one core. The runtime's list of places has the CPUs that
it found at first. Ranks are not bound one by one: the kernel moves one that waits for a core to a free one, also when
other programs, or another session's ranks, are running.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET")
OPENMP = re.compile(r"/lib(gomp|iomp5|omp)[-.][^/]*$")


def allowed() -> set[int]:
    """Return the numbers of the CPUs on which this process, and so its ranks, may run."""
    own = os.sched_getaffinity(0)
    return own if not any(name in os.environ for name in BINDING) else own.union(*map(places, openmp_libraries()))


def openmp_libraries() -> list[str]:
    """Return the files of the OpenMP runtimes that this process has loaded."""
    lines = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    return sorted({fields[5] for fields in lines if len(fields) == 6 and OPENMP.search(fields[5])})


def places(path: str) -> set[int]:
    """Return the CPUs of the places of a loaded OpenMP runtime (OpenMP 4.5, section 3.2.23); empty if it binds nothing."""
    library = ctypes.CDLL(path)
    found: set[int] = set()
    for place in range(library.omp_get_num_places()):
        ids = (ctypes.c_int * library.omp_get_place_num_procs(place))()
        library.omp_get_place_proc_ids(place, ids)
        found.update(ids)
    return found
