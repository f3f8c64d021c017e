"""The collectives over MPI, one sub-communicator for each mesh axis. Arrays go by their buffers; nothing is pickled."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import mpi4py
import numpy as np
import numpy.typing as npt

from unitp.engine.transport import Tally
from unitp.errors import BackendError
from unitp.mesh import Mesh

mpi4py.rc.thread_level = "funneled"  # only the main thread communicates
mpi4py.rc.finalize = False  # `close` does; a rank that ends without it must not wait for others

from mpi4py import MPI  # noqa: E402  (reads the settings above)

Array = npt.NDArray[Any]

_REDUCTIONS = {"sum": MPI.SUM, "max": MPI.MAX}


class Collectives:
    """`unitp.engine.primitives.Collectives` among the ranks of MPI's world."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        world = MPI.COMM_WORLD
        if (world.rank, world.size) != (rank, mesh.size):
            raise BackendError(
                f"rank {rank} of {mesh.size} is rank {world.rank} of {world.size} in MPI",
                hint="Several NumPy ranks start under MPICH's mpiexec, in the order of their numbers.",
            )
        self.tally = Tally()
        self._groups: dict[str, MPI.Comm] = {}
        for axis, size in mesh.axes:
            if size > 1:
                group = mesh.group_of(rank, axis)
                self._groups[axis] = world.Split(color=group[0], key=group.index(rank))
        _unname(world)

    def all_reduce(self, x: Array, axis: str, reduction: str) -> Array:
        send = np.asarray(x, order="C")
        out = np.empty_like(send)
        self.reduce_into(send, out, axis, reduction)
        return out

    def reduce_into(self, x: Array, out: Array, axis: str, reduction: str) -> None:
        """`all_reduce` of a contiguous array, into another of its shape and dtype."""
        with self.tally.call(x.nbytes):
            self._groups[axis].Allreduce(x, out, _REDUCTIONS[reduction])

    def all_gather(self, x: Array, axis: str) -> list[Array]:
        group = self._groups[axis]
        out = np.empty((group.size, *x.shape), x.dtype)
        with self.tally.call(x.nbytes):
            group.Allgather(np.asarray(x, order="C"), out)
        return list(out)

    def reduce_scatter(self, parts: Sequence[Array], axis: str) -> Array:
        send = _stacked(parts)
        out = np.empty(send.shape[1:], send.dtype)
        with self.tally.call(send.nbytes):
            self._groups[axis].Reduce_scatter_block(send, out)
        return out

    def all_to_all(self, parts: Sequence[Array], axis: str) -> list[Array]:
        send = _stacked(parts)
        out = np.empty(send.shape, send.dtype)
        with self.tally.call(send.nbytes):
            self._groups[axis].Alltoall(send, out)
        return list(out)

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


def _stacked(parts: Sequence[Array]) -> Array:
    """The parts behind one another in memory (`numpy.stack` keeps a transposed order)."""
    out = np.empty((len(parts), *parts[0].shape), parts[0].dtype)
    for place, part in zip(out, parts, strict=True):
        place[...] = part
    return out
