"""Seconds of the outputs of a calibration's graph: all of them in turn, round by round, so that what disturbs one disturbs all.

Of the rounds the lower quartile counts: what else runs on the machine only ever adds. A rank's seconds are those of its engine
(`unitp.runtime.messages.Trace`): from the first that begins to the last that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from unitp.comparison.calibration.parts import LONG, ROWS, SEEN, SHORT, VOCABULARY, WIDTH, Parts
from unitp.program.engine import Array
from unitp.runtime.session import Session, TracedCall

FEWEST, MOST = 5, 60
"""Rounds."""

Say = Callable[[str, float], None]
"""Is told what is done, and which part of the whole is."""


class Program(NamedTuple):
    """An output for so many rows."""

    output: str
    rows: int


class Times:
    """Seconds of each program: of the slowest rank (`seconds`), and of the driver beyond that (`beyond`)."""

    def __init__(self) -> None:
        self.found: dict[Program, list[tuple[float, float]]] = {}

    def add(self, program: Program, call: TracedCall) -> None:
        inside = (max(t.ended for t in call.traces) - min(t.begun for t in call.traces)) / 1e9
        self.found.setdefault(program, []).append((inside, (call.ended - call.begun) / 1e9 - inside))

    def seconds(self, program: Program) -> float:
        return quartile([inside for inside, _ in self.found[program]])

    def beyond(self, program: Program) -> float:
        return quartile([outside for _, outside in self.found[program]])

    @property
    def rounds(self) -> int:
        return min(len(found) for found in self.found.values())


def quartile(values: list[float]) -> float:
    return float(np.quantile(values, 0.25))


def programs_of(parts: Parts) -> list[Program]:
    """What has to run, once each."""
    found = [Program(parts.empty, 1)]
    for d in parts.differences:
        found += [Program(d.more, d.rows), Program(d.less, d.less_rows or d.rows)]
    return list(dict.fromkeys(found))


def inputs(rows: int) -> dict[str, Array]:
    """Arrays for every input of the graph."""
    x = np.random.default_rng(rows).uniform(0.9, 1.1, (1, rows, WIDTH))
    lengths = {ROWS: ROWS, SHORT: int(SHORT * SEEN), LONG: int(LONG * SEEN)}
    return {
        "x": x.astype(np.float32),
        "wide": x,
        "positions": np.arange(rows, dtype=np.int64)[None],
        "ids": (np.arange(rows, dtype=np.int64)[None] * 769) % VOCABULARY,
        **{f"length_{n}": np.array([seen], np.int64) for n, seen in lengths.items()},
    }


def measure(session: Session, parts: Parts, budget_s: float, say: Say) -> Times:
    """Time everything for `budget_s` seconds, once programs are compiled: at least FEWEST rounds."""
    programs, times = programs_of(parts), Times()
    given: Mapping[int, dict[str, Array]] = {p.rows: inputs(p.rows) for p in programs}
    for number, program in enumerate(programs):
        say(f"compiling {number + 1} of {len(programs)} programs", 0.5 * number / len(programs))
        _run(session, program, given)
    begun = time.monotonic()
    for number in range(MOST):
        spent = (time.monotonic() - begun) / budget_s
        if number >= FEWEST and spent >= 1:
            break
        say(f"measuring, round {number + 1}", 0.5 + 0.5 * min(max(spent, number / MOST), 1))
        for program in programs:
            with session.tracing() as calls:
                _run(session, program, given)
            times.add(program, calls[0])
    return times


def _run(session: Session, program: Program, given: Mapping[int, dict[str, Array]]) -> None:
    session.execute({"rows": program.rows}, (program.output,), given[program.rows])
