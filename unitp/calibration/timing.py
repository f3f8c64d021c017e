"""Timing the outputs of a calibration's graph: all in turn, round by round, so that a disturbance hits all of them alike.

Other work on the machine only ever adds time. So a program without collectives counts with a low quantile over all ranks and
rounds, by the clock of each engine (`unitp.wire.messages.Trace`). A program with collectives lasts from the first rank's begin to
the last rank's end, and waiting is part of it: it counts with the median, and so does the chain that it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import numpy as np

from unitp.calibration.probes import LONG, ROWS, SEEN, SHORT, VOCABULARY, WIDTH, Parts
from unitp.engine.engine import Array
from unitp.session.session import Session, TracedCall

FEWEST, MOST = 5, 60
"""The least and the most rounds."""
QUICK = 0.1
"""The quantile that stands for an undisturbed run."""

Say = Callable[[str, float], None]
"""A function that receives what is being done and the fraction of the whole that is done."""


class Program(NamedTuple):
    """An output of the graph for a number of rows."""

    output: str
    rows: int


class Times:
    """Seconds of each program, from its calls."""

    def __init__(self) -> None:
        self.found: dict[Program, list[TracedCall]] = {}

    def add(self, program: Program, call: TracedCall) -> None:
        """Add one call of a program."""
        self.found.setdefault(program, []).append(call)

    def alone(self, program: Program) -> float:
        """Return the seconds of a rank, near those of its fastest run."""
        each = [(t.ended - t.begun) / 1e9 for call in self.found[program] for t in call.traces]
        return float(np.quantile(each, QUICK))

    def together(self, program: Program) -> float:
        """Return the median seconds from the first rank's begin to the last rank's end."""
        return median(
            (max(t.ended for t in c.traces) - min(t.begun for t in c.traces)) / 1e9 for c in self.found[program]
        )

    def seen(self, program: Program) -> float:
        """Return the median seconds that the driver sees, from the request to the last answer."""
        return median((call.ended - call.begun) / 1e9 for call in self.found[program])

    @property
    def rounds(self) -> int:
        """The number of complete rounds."""
        return min(len(found) for found in self.found.values())


def programs_of(parts: Parts) -> list[Program]:
    """Return every program that has to run, once."""
    found = [Program(parts.empty, 1)]
    for d in parts.differences:
        found += [Program(d.more, d.rows), Program(d.less, d.less_rows or d.rows)]
    return list(dict.fromkeys(found))


def inputs(rows: int) -> dict[str, Array]:
    """Return an array for every input of the graph."""
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
    """Time all programs for about `budget_s` seconds after they are compiled, in at least `FEWEST` rounds."""
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
