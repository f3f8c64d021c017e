"""The engine of a rank: the eager interpreter on PyTorch tensors. One rank needs no process group."""

from __future__ import annotations

import torch

from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Array, Engine, NotFinite, Progress
from unitp.engine.transport import Alone, CountedCollectives
from unitp.mesh import Mesh
from unitp_torch import primitives
from unitp_torch.overrides import overrides


class TorchEngine(EagerEngine):
    """Without autograd: tensors made in inference mode carry no history."""

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        with torch.inference_mode():
            return super().run(key, inputs, bank)

    def reset(self, bank: int) -> None:
        with torch.inference_mode():  # states were made in it
            super().reset(bank)

    def first_not_finite(self, key: str, inputs: dict[str, Array], bank: int = 0) -> NotFinite | None:
        with torch.inference_mode():
            return super().first_not_finite(key, inputs, bank)


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_torch.cluster` started."""
    torch.set_float32_matmul_precision("highest")
    return TorchEngine(primitives, overrides, _collectives(rank, mesh), rank, mesh, progress)


def _collectives(rank: int, mesh: Mesh) -> CountedCollectives:
    if mesh.size == 1:
        return Alone()
    from unitp_torch.collectives import Collectives

    return Collectives(rank, mesh)
