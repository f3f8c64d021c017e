"""An engine of NumPy's that reads other numbers than it is given, on every rank but the first."""

from __future__ import annotations

from typing import Any

import numpy as np
from unitp_numpy import executor

from unitp.engine.engine import Array, Engine, Progress
from unitp.engine.transport import Buffers
from unitp.mesh import Mesh

OFF = 0.3


class Unlike:
    """An engine that is like another, except for the parameters that it loads."""

    def __init__(self, engine: Engine, rank: int) -> None:
        self._engine, self._rank = engine, rank

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def load(self, name: str, array: Array) -> None:
        noise = np.random.default_rng(self._rank).normal(size=array.shape)
        factor = 1 + OFF * bool(self._rank) * noise
        self._engine.load(name, np.multiply(array, factor, dtype=np.float64).astype(array.dtype))


def connect(rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> Unlike:
    return Unlike(executor.connect(rank, mesh, progress, buffers), rank)
