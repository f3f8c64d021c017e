"""What the machine can do at all, in GB/s of weights: the best of several ways to read them, by one process and by two.

    kernel              products of one row by the compiled kernel of `unitp_numpy`, nothing else
    1 stream, 4 streams sums in numba, from the beginning on, or of four quarters at once
    dot                 a product of the weights with themselves by BLAS
    add                 a sum by NumPy

What is read are the weights of the model, in their shapes and large pages: two processes have a half each. A decode step reads
each weight once, so tokens per second times the bytes of all weights cannot be more. The neighbours of a shared machine move
this limit within minutes, so it is measured before and after every decode, and the better of both counts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from math import prod

from speed.figures import Key
from speed.peers import Lines
from speed.subjects import Subject
from unitp.graph.graph import Graph

KERNEL = "kernel"
MEASURE = "limit"
PASSES = 3
SOON_S = 0.005
"""So long after they are asked all processes begin, at one time."""


class Limits:
    """Processes that read: one with all weights, and two with a half each."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        ready_kernels()
        listed = ";".join(",".join(map(str, (*shape, len([*same])))) for shape, same in groupby(shapes))
        self._bytes = 4 * sum(map(prod, shapes))
        self._processes = {
            parts: [Lines("speed.serve_limit", listed, str(part), str(parts), env={}) for part in range(parts)]
            for parts in (1, 2)
        }
        ready = [one.answer() for processes in self._processes.values() for one in processes]
        self.ways: list[str] = ready[0]

    def probe(self) -> dict[Key, float]:
        """GB/s of each way, by one and by two processes."""
        return {
            Key(MEASURE, Subject(way, parts)): self._rate(processes, way)
            for parts, processes in self._processes.items()
            for way in self.ways
        }

    def _rate(self, processes: Sequence[Lines], way: str) -> float:
        start = time.monotonic() + SOON_S
        for one in processes:
            one.ask({"way": way, "passes": PASSES, "start": start})
        spans = [one.answer() for one in processes]
        seconds: float = max(ended for _, ended in spans) - min(begun for begun, _ in spans)
        return PASSES * self._bytes / seconds / 1e9

    def close(self) -> None:
        for processes in self._processes.values():
            for one in processes:
                one.close()


def ready_kernels() -> None:
    """Compile the kernels of `unitp_numpy` where they are not there yet. What stands in the way is told when they are loaded."""
    from unitp_numpy.kernels.library import prepare

    prepare(sys.executable, os.environ, lambda text: print(text, file=sys.stderr))


def matrices(graph: Graph) -> list[tuple[int, int]]:
    """The shapes of the weights that a decode step multiplies with, each once."""
    shapes = [[n for n in parameter.type.shape if isinstance(n, int)] for parameter in graph.parameters]
    return [(n, k) for shape in shapes if len(shape) == 2 for n, k in [shape]]


def faster(*probes: dict[Key, float], processes: int) -> float:
    """The best rate of so many processes in some probes."""
    return max(rate for probe in probes for key, rate in probe.items() if key.subject.ranks == processes)


def gain(*probes: dict[Key, float]) -> float | None:
    """How much faster two processes were than one with the bare kernel, in some probes; None without compiled kernels."""
    one, two = (sum(probe.get(Key(MEASURE, Subject(KERNEL, n)), 0.0) for probe in probes) for n in (1, 2))
    return two / one if one else None
