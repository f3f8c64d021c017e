"""The engine of a backend that carries out instructions one by one, as the interpreter prepared them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.engine import EngineStats
from unitp.engine.interpreter import Runner
from unitp.engine.primitives import Tensor
from unitp.program.instructions import Program


@final
class EagerProgram(CompiledProgram):
    """A program whose instructions are the steps."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._runner = runner

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._runner.run(store)

    def settle(self) -> None:
        """Do nothing: collectives are counted when they are called."""


@final
class EagerEngine(BaseEngine):
    """`unitp.engine.engine.Engine` over a backend's primitives, overrides and collectives."""

    def prepare(self, program: Program) -> CompiledProgram:
        return EagerProgram(self.folded(program))

    def stats(self) -> EngineStats:
        """Return the costs so far. A program counts as traced while it is kept."""
        tally = self.collectives.tally
        return EngineStats(tally.seconds, tally.calls, tally.bytes, len(self.programs))
