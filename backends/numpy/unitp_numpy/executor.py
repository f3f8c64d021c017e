"""The engine of a rank: the interpreter on NumPy arrays, and kernels for programs of few rows where numba has compiled them.

NumPy has no transport of its own: several ranks get theirs from unitp, joined (`unitp.engine.transport.Buffers`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import final

from unitp.engine.arena import Arena
from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.eager import EagerProgram
from unitp.engine.engine import Engine, EngineStats, Progress
from unitp.engine.transport import Alone, Buffered, Buffers
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp_numpy import primitives
from unitp_numpy.kernels.library import DTYPES, Missing, Run, load
from unitp_numpy.kernels.program import prepared
from unitp_numpy.kernels.scratch import Pool
from unitp_numpy.overrides import overrides


@final
class NumpyEngine(BaseEngine):
    """`unitp.engine.engine.Engine` on NumPy arrays."""

    def __init__(self, rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> None:
        collectives = Alone() if buffers is None else Buffered(buffers)
        super().__init__(primitives, overrides, collectives, rank, mesh, progress, keep=Arena().copy)
        self._pool, self.kernels = Pool(), _kernels()

    def prepare(self, program: Program) -> CompiledProgram:
        runner = self.folded(program)
        into = getattr(self.collectives, "reduce_into", None)
        return prepared(runner, self._pool, self.kernels, into) or EagerProgram(runner)

    def stats(self) -> EngineStats:
        """A program counts as traced while it is there."""
        tally = self.collectives.tally
        return EngineStats(tally.seconds, tally.calls, tally.bytes, len(self.programs))


def connect(rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> Engine:
    """The engine of a rank among those that are joined by `buffers`; of one that is alone without."""
    return NumpyEngine(rank, mesh, progress, buffers)


def _kernels() -> dict[str, Run]:
    """The kernels of each type, as far as there are any. They are loaded before there is anything to do: they take memory."""
    found = {}
    for dtype in DTYPES:
        with suppress(Missing):
            found[dtype] = load(dtype)
    return found
