"""The engine of a rank: the eager interpreter on PyTorch tensors.

One rank needs no process group, and ranks over another transport than gloo have none: it works on the memory of tensors.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from unitp.engine.arena import Arena
from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Array, Engine, Progress
from unitp.engine.transport import Alone, Buffers, CountedCollectives
from unitp.mesh import Mesh
from unitp_torch import primitives
from unitp_torch.carried import carried
from unitp_torch.overrides import overrides


def connect(rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> Engine:
    """Join the ranks that `unitp_torch.cluster` started, or take those that `buffers` have joined.

    Without autograd: tensors that are made in inference mode carry no history, and states, which are made in it, are written
    in it too.
    """
    torch.set_float32_matmul_precision("highest")
    joined, kept = _collectives(rank, mesh, buffers), partial(keep, Arena())
    return EagerEngine(primitives, overrides, joined, rank, mesh, progress, keep=kept, scope=torch.inference_mode)


def keep(arena: Arena, array: Array) -> Tensor:
    """A parameter's tensor, from a copy. A matrix is stored so that its longer dim is contiguous (`unitp_torch.overrides`)."""
    if array.ndim != 2 or array.shape[0] <= array.shape[1]:
        return torch.from_numpy(arena.copy(array))
    stored = torch.from_numpy(arena.room(array.shape[::-1], array.dtype)).t()
    return stored.copy_(torch.from_numpy(array))


def _collectives(rank: int, mesh: Mesh, buffers: Buffers | None) -> CountedCollectives:
    if mesh.size == 1:
        return Alone()
    if buffers is not None:
        return carried(buffers)
    from unitp_torch.collectives import Collectives

    return Collectives(rank, mesh)
