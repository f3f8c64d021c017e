"""The engine of a rank: the eager interpreter on NumPy arrays. One rank needs no MPI, and does not import mpi4py."""

from __future__ import annotations

from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Engine, Progress
from unitp.engine.transport import Alone, CountedCollectives
from unitp.mesh import Mesh
from unitp_numpy import primitives
from unitp_numpy.arena import Arena
from unitp_numpy.overrides import overrides


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_numpy.cluster` started."""
    return EagerEngine(primitives, overrides, join(rank, mesh), rank, mesh, progress, keep=Arena().copy)


def join(rank: int, mesh: Mesh) -> CountedCollectives:
    """The collectives of this rank."""
    if mesh.size == 1:
        return Alone()
    from unitp_numpy.collectives import Collectives

    return Collectives(rank, mesh)
