"""An engine that does what NumPy's does, and counts the seconds of its runs."""

from __future__ import annotations

import time
from typing import Any

from unitp_numpy import SPEC

from unitp.engine.engine import Array, EngineStats
from unitp.plugins.discover import resolve


class Clocked:
    """Everything is the engine's own, but `run` and `stats`."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._runs, self._seconds = 0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        begun = time.perf_counter()
        found: dict[str, Array] = self._engine.run(key, inputs, bank)
        self._seconds += time.perf_counter() - begun
        self._runs += 1
        return found

    def stats(self) -> EngineStats:
        """`collective_s` is the seconds of all runs, and `collectives` their number."""
        return EngineStats(self._seconds, self._runs)


def connect(*arguments: Any) -> Clocked:
    """Join the group of ranks as NumPy's engine does."""
    return Clocked(resolve(SPEC.engine)(*arguments))
