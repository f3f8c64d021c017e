"""Fitting the numbers of a machine to measured seconds, by small least-squares problems with relative errors.

    operator      s_i ~ o + max(flops_i / F, bytes_i / B)     fit_rate       o, 1/F, 1/B >= 0
    contraction   s_i ~ o + flops_i / F(1)                    fit_rows       then F(r) = flops / (s - o) at other rows r
    collective    s_i ~ c + bytes_i * m                       fit_stretches  two lines by size if one does not fit

Nothing here starts a session: `unitp.calibration` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.cost.collectives import ROUNDS
from unitp.cost.device import Points, Rate
from unitp.cost.link import Stretch

FASTEST = 1e13
"""The bytes/s or FLOP/s of work whose time was too short to measure."""

BENT = 0.15
"""If a line misses some sample by more than this fraction, two lines are fitted."""

Vector = npt.NDArray[np.float64]


class Sample(NamedTuple):
    """The FLOPs and bytes of one run of an operator, and the seconds that it took."""

    flops: float
    bytes: float
    seconds: float


def least_squares(columns: Sequence[Sequence[float]], seconds: Sequence[float]) -> Vector:
    """Return the coefficients x >= 0 that minimise the sum of ((columns x)_i / s_i - 1)^2, by trying every subset of columns."""
    target = np.maximum(np.array(seconds, np.float64), 1e-9)
    scaled = np.array(columns, np.float64).T / target[:, None]
    best, found = inf, np.zeros(len(columns))
    for count in range(1, len(columns) + 1):
        for subset in combinations(range(len(columns)), count):
            part = scaled[:, subset]
            solved = np.linalg.lstsq(part, np.ones(len(target)), rcond=None)[0]
            error = float(np.sum((part @ solved - 1) ** 2))
            if (solved >= 0).all() and error < best * (1 - 1e-9):
                best, found = error, np.zeros(len(columns))
                found[list(subset)] = solved
    return found


def fit_rate(samples: Sequence[Sample]) -> Rate:
    """Return the overhead and rates of an operator, after trying which samples are bound by arithmetic and which by memory."""
    ordered = sorted(samples, key=lambda s: s.flops / max(s.bytes, 1.0))
    seconds = [s.seconds for s in ordered]
    best, found = inf, Rate(0.0, FASTEST, FASTEST)
    for cut in range(len(ordered), -1, -1):
        low = [s.bytes if i < cut else 0.0 for i, s in enumerate(ordered)]
        high = [0.0 if i < cut else s.flops for i, s in enumerate(ordered)]
        overhead, per_byte, per_flop = least_squares([[1.0] * len(ordered), low, high], seconds)
        rate = Rate(float(overhead), _rate(per_flop), _rate(per_byte))
        error = max(abs(seconds_at(rate, s) / max(s.seconds, 1e-9) - 1) for s in ordered)
        if error < best * (1 - 1e-6):
            best, found = error, rate
    return found


def seconds_at(rate: Rate, sample: Sample) -> float:
    """Return the seconds that a fitted rate predicts for a sample."""
    return max(sample.flops / (rate.flops_per_s or inf), sample.bytes / (rate.bytes_per_s or inf)) + (
        rate.operator_s or 0.0
    )


def fit_rows(single: Sequence[Sample], many: Sequence[tuple[float, Sample]]) -> tuple[float, Points]:
    """Return the overhead of a contraction in seconds, and its FLOP/s by rows.

    single   samples of one row
    many     (rows, sample) of more rows
    """
    overhead, per_flop = least_squares([[1.0] * len(single), [s.flops for s in single]], [s.seconds for s in single])
    points = [(1.0, _rate(per_flop))]
    for rows, sample in sorted(many):
        points.append((rows, sample.flops / max(sample.seconds - float(overhead), sample.seconds / 2)))
    return float(overhead), tuple(points)


def fit_stretches(kind: str, ranks: int, samples: Sequence[tuple[float, float]]) -> tuple[Stretch, ...]:
    """Return the numbers of a kind of collective from samples (bytes, seconds) among `ranks`.

    Time that does not depend on bytes counts half as latency of the steps and half as price of the call, since samples of one
    number of ranks cannot tell them apart.
    """
    ordered = sorted((size, max(seconds, 1e-9)) for size, seconds in samples)
    best = [(ordered, _line(ordered))]
    if _off(*best[0]) > BENT and len(ordered) > 3:
        halves = [(ordered[:i], ordered[i:]) for i in range(2, len(ordered) - 1)]
        both = [[(part, _line(part)) for part in half] for half in halves]
        best = min(both, key=lambda parts: max(_off(*part) for part in parts))
    steps = ROUNDS[kind] * (ranks - 1)
    found = []
    for number, (part, (fixed, slope)) in enumerate(best):
        end = inf if number == len(best) - 1 else (part[-1][0] * best[number + 1][0][0][0]) ** 0.5
        found.append(Stretch(fixed / 2 / steps, _rate(slope * ranks / steps), fixed / 2, end))
    return tuple(found)


def _line(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    sizes, seconds = zip(*samples, strict=True)
    fixed, slope = least_squares([[1.0] * len(sizes), sizes], seconds)
    return float(fixed), float(slope)


def _off(samples: Sequence[tuple[float, float]], line: tuple[float, float]) -> float:
    return max(abs((line[0] + line[1] * size) / seconds - 1) for size, seconds in samples)


def _rate(per_unit: float) -> float:
    return min(1 / float(per_unit), FASTEST) if per_unit > 0 else FASTEST
