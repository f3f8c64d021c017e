"""Reads its part of the weights as fast as it can: `python -m speed.serve_limit N,K,COUNT;... PART PARTS`.

A request has the way, the number of passes, and when to begin; the answer is when it began and ended, both by a clock that
all processes share.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from speed.limits import KERNEL
from speed.peers import answers, tell
from unitp.engine.arena import Arena

Weights = list[npt.NDArray[np.float32]]


def main(listed: str, part: int, parts: int) -> None:
    """Answer requests until standard input ends."""
    out = answers()
    weights = allocated(listed, part, parts)
    known = ways(weights)
    for read in known.values():
        read()
    tell(out, [*known])
    for line in sys.stdin:
        request = json.loads(line)
        read = known[request["way"]]
        while (begun := time.monotonic()) < request["start"]:
            pass
        for _ in range(request["passes"]):
            read()
        tell(out, [begun, time.monotonic()])


def allocated(listed: str, part: int, parts: int) -> Weights:
    """Rows of each weight for this part, in large pages."""
    arena, made, random = Arena(), [], np.random.default_rng(part)
    for item in listed.split(";"):
        n, k, count = map(int, item.split(","))
        rows = n * (part + 1) // parts - n * part // parts
        for _ in range(count):
            weight = arena.room((rows, k), np.float32)
            weight[...] = random.standard_normal((1, k), np.float32)
            made.append(weight)
    return made


def ways(weights: Weights) -> dict[str, Callable[[], object]]:
    """Functions that read all weights once, by name; those only that can be had here."""
    flat = [weight.reshape(-1) for weight in weights]
    return {
        **kernel(weights),
        **sums(flat),
        "dot": lambda: [np.dot(x, x) for x in flat],
        "add": lambda: [np.add.reduce(x) for x in flat],
    }


def kernel(weights: Weights) -> dict[str, Callable[[], object]]:
    """A product of one row with each weight: one call of the compiled kernel, with a row of its table for each weight."""
    from unitp_numpy.kernels.library import Missing, load
    from unitp_numpy.kernels.table import Op, address, empty_table

    try:
        run = load("float32")
    except Missing as error:
        print(error, file=sys.stderr)
        return {}
    table = empty_table(len(weights))
    x = np.ones(max(w.shape[1] for w in weights), np.float32)
    y = np.empty(max(w.shape[0] for w in weights), np.float32)
    for row, w in zip(table, weights, strict=True):
        row[:7] = (Op.PRODUCT, 1, *w.shape, address(x), address(w), address(y))
    kept = (table, x, y)
    return {KERNEL: lambda: run(address(kept[0]), len(weights))}


def sums(flat: Weights) -> dict[str, Callable[[], object]]:
    """Sums in numba, where it is installed."""
    try:
        from numba import njit
    except ImportError as error:
        print(error, file=sys.stderr)
        return {}

    def one(x: Any) -> Any:
        total = np.float32(0)
        for i in range(x.size):
            total += x[i]
        return total

    def four(x: Any) -> Any:
        h = x.size // 4
        a = np.float32(0)
        b = np.float32(0)
        c = np.float32(0)
        d = np.float32(0)
        for i in range(h):
            a += x[i]
            b += x[i + h]
            c += x[i + 2 * h]
            d += x[i + 3 * h]
        return a + b + c + d

    def reading(function: Any) -> Callable[[], object]:
        compiled = njit("float32(float32[::1])", fastmath=True)(function)
        return lambda: [compiled(x) for x in flat]

    return {"1 stream": reading(one), "4 streams": reading(four)}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
