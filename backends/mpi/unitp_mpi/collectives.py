"""The collectives over MPI, one sub-communicator for each mesh axis. Arrays go by their buffers; nothing is pickled.

MPICH picks the algorithm of a reduction by the size of the array and of the group, so that the order of its sums, and
with it every bit, is the same in each run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import mpi4py
import numpy as np
import numpy.typing as npt

from unitp.errors import BackendError
from unitp.mesh import Mesh

mpi4py.rc.thread_level = (
    "serialized"  # one thread at a time communicates: TensorFlow's calls come from threads of its own
)
mpi4py.rc.finalize = False  # `close` does; a rank that ends without it must not wait for others

from mpi4py import MPI  # noqa: E402  (reads the settings above)

Array = npt.NDArray[Any]

PAIR = 2
"""Two ranks exchange at once what MPI's own algorithms move in several steps (590 KB: 86 us instead of 287)."""
_REDUCTIONS = {"sum": MPI.SUM, "max": MPI.MAX}
_LOGICAL = {"sum": MPI.LOR, "max": MPI.LOR}
"""Of bools, as NumPy has it: their sum and their maximum are whether any is true."""


class Buffers:
    """`unitp.engine.transport.Buffers` among the ranks of MPI's world."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        world = MPI.COMM_WORLD
        if (world.rank, world.size) != (rank, mesh.size):
            raise BackendError(
                f"rank {rank} of {mesh.size} is rank {world.rank} of {world.size} in MPI",
                hint="Several ranks over MPI start under MPICH's mpiexec, in the order of their numbers.",
            )
        self.sizes: Mapping[str, int] = mesh.sizes
        self._groups: dict[str, MPI.Comm] = {}
        for axis, size in mesh.axes:
            if size > 1:
                group = mesh.group_of(rank, axis)
                self._groups[axis] = world.Split(color=group[0], key=group.index(rank))
        _unname(world)

    def all_reduce(self, x: Array, out: Array, axis: str, reduction: str) -> None:
        operations = _LOGICAL if x.dtype.kind == "b" else _REDUCTIONS
        self._groups[axis].Allreduce(x, out, operations[reduction])

    def all_gather(self, x: Array, out: Array, axis: str) -> None:
        group = self._groups[axis]
        if group.size != PAIR:
            group.Allgather(x, out)
            return
        me, peer = group.rank, 1 - group.rank
        group.Sendrecv(x, peer, recvbuf=out[peer : peer + 1], source=peer)
        out[me] = x

    def reduce_scatter(self, parts: Array, out: Array, axis: str) -> None:
        group = self._groups[axis]
        if group.size != PAIR:
            group.Reduce_scatter_block(parts, out)
            return
        me, peer = group.rank, 1 - group.rank
        group.Sendrecv(parts[peer : peer + 1], peer, recvbuf=out, source=peer)
        np.add(out, parts[me], out)  # of two, either order gives the same bits

    def all_to_all(self, parts: Array, out: Array, axis: str) -> None:
        self._groups[axis].Alltoall(parts, out)

    def close(self) -> None:
        """Leave MPI, which waits for the other ranks to leave too."""
        for group in self._groups.values():
            group.Free()
        self._groups.clear()
        if MPI.Is_initialized() and not MPI.Is_finalized():
            MPI.Finalize()


def _unname(world: MPI.Comm) -> None:
    """Remove the name of the shared memory that all ranks have mapped by now, so that it is freed with the last of them,
    however they end. MPICH keeps it until MPI_Finalize.
    """
    world.Barrier()
    if world.rank == 0:
        with open("/proc/self/maps") as maps:
            names = set(re.findall(r"/dev/shm/mpich_\S+$", maps.read(), re.MULTILINE))
        for name in names:
            os.unlink(name)
