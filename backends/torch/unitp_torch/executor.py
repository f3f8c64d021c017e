"""The engine of a rank: the eager interpreter on PyTorch tensors. One rank needs no process group."""

from __future__ import annotations

import torch

from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Engine, Progress
from unitp.engine.transport import Alone, CountedCollectives
from unitp.mesh import Mesh
from unitp_torch import primitives
from unitp_torch.overrides import overrides


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_torch.cluster` started. Without autograd: tensors that are made in inference mode
    carry no history, and states, which are made in it, are written in it too.
    """
    torch.set_float32_matmul_precision("highest")
    joined = _collectives(rank, mesh)
    return EagerEngine(primitives, overrides, joined, rank, mesh, progress, scope=torch.inference_mode)


def _collectives(rank: int, mesh: Mesh) -> CountedCollectives:
    if mesh.size == 1:
        return Alone()
    from unitp_torch.collectives import Collectives

    return Collectives(rank, mesh)
