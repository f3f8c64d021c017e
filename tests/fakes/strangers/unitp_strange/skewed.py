"""NumPy's backend, but every float that a rank gives back is a thousandth too large."""

from __future__ import annotations

from typing import Any

import msgspec

from unitp.engine.engine import Array, Progress
from unitp.mesh import Mesh
from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec


class Skewed:
    """An engine that is right but for `run`."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        found = self._engine.run(key, inputs, bank)
        return {name: a * a.dtype.type(1.001) if a.dtype.kind == "f" else a for name, a in found.items()}


def connect(rank: int, mesh: Mesh, progress: Progress) -> Skewed:
    from unitp_numpy import executor

    return Skewed(executor.connect(rank, mesh, progress))


@hookimpl
def unitp_backend() -> BackendSpec:
    from unitp_numpy import SPEC

    return msgspec.structs.replace(SPEC, name="skewed", engine="unitp_strange.skewed:connect")
