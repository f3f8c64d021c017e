"""Deriving a device and a link from the times of a calibration's programs, with a note on how each number was measured."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.calibration.fits import FASTEST, Sample, fit_rate, fit_rows, fit_stretches
from unitp.calibration.probes import FEW, HIDDEN, LARGE, MANY, ROWS, SEEN, SMALL, WIDTH, Difference, Parts
from unitp.calibration.timing import Program, Times
from unitp.cost import Device, Link, Rate, Stretch
from unitp.cost.link import KINDS
from unitp.graph.ops import is_contraction, known_ops, operator

LEAST_S = 2e-7
"""The least seconds of an operator: the difference of two measurements may be zero or negative."""

Notes = dict[str, str]
Samples = dict[tuple[str, str, int, float], float]
"""Seconds by operator, dtype, rows and bytes."""


def seconds_of(times: Times, d: Difference) -> float:
    """Return the seconds of one operator or collective, as the difference of two programs divided by the number of repeats."""
    seconds = times.together if d.what in KINDS else times.alone
    more, less = seconds(Program(d.more, d.rows)), seconds(Program(d.less, d.less_rows or d.rows))
    return max((more - less) / d.times, LEAST_S)


def samples_of(parts: Parts, times: Times, alone: Samples | None = None) -> Samples:
    """Return the seconds of every operator and shape, at least those of one rank `alone`."""
    known = alone or {}
    return {
        _key(d): max(seconds_of(times, d), known.get(_key(d), 0.0)) for d in parts.differences if d.what not in KINDS
    }


def _key(d: Difference) -> tuple[str, str, int, float]:
    return d.what, d.dtype, d.rows, d.bytes


def device_of(parts: Parts, times: Times, samples: Samples) -> Device:
    """Return the device of a rank while as many ranks work as in the measurement."""
    found: dict[tuple[str, str], list[tuple[Difference, Sample]]] = {}
    for d in parts.differences:
        if d.what not in KINDS:
            found.setdefault((d.what, d.dtype), []).append((d, Sample(d.flops, d.bytes, samples[_key(d)])))

    def measured(what: str) -> list[tuple[Difference, Sample]]:
        return found.pop((what, "float32"))

    overhead, points = _products(measured(parts.product))
    add = fit_rate([s for _, s in measured(parts.addition)])
    moved = fit_rate([s for _, s in measured(parts.movement)])
    matmul = {"float32": points}
    if (double := found.pop((parts.product, "float64"), None)) is not None:
        pairs = [(float(d.rows), s) for d, s in double]
        matmul["float64"] = tuple((n, s.flops / max(s.seconds - overhead, s.seconds / 2)) for n, s in pairs)
    view = (moved.operator_s or 0.0) / 3
    records = {name: operator(name) for name in sorted(known_ops())}
    rates = {name: Rate(overhead) for name in records if is_contraction(name)}
    rates |= {name: Rate(view) for name, record in records.items() if record.traffic == "none"}
    rates[parts.movement] = Rate(view, None, moved.bytes_per_s)
    for (what, _), members in found.items():
        fitted = fit_rate([_less(s, d.reshapes * view + d.additions * _at(add, s.bytes * 1.5)) for d, s in members])
        rates[what] = Rate(fitted.operator_s, fitted.flops_per_s, fitted.bytes_per_s)
        if records[what].kind == "look-up":
            rates |= {name: rates[what] for name, record in records.items() if record.kind == "look-up"}
    empty = Program(parts.empty, 1)
    return Device(
        flops_per_s={dtype: max(f for _, f in table) for dtype, table in matmul.items()},
        memory_bytes_per_s=_bandwidth(add, points),
        operator_s=add.operator_s or 0.0,
        matmul=matmul,
        operators=rates,
        program_s=max(times.seen(empty) - (add.operator_s or 0.0), 0.0),
    )


def _products(found: Sequence[tuple[Difference, Sample]]) -> tuple[float, tuple[tuple[float, float], ...]]:
    single = [s for d, s in found if d.rows == 1]
    return fit_rows(single, [(float(d.rows), s) for d, s in found if d.rows > 1])


def _bandwidth(add: Rate, points: Sequence[tuple[float, float]]) -> float:
    """Return the bytes per second of other operators: those of an addition or, if it was too fast to tell, of a one-row product."""
    rate = add.bytes_per_s or FASTEST
    return rate if rate < FASTEST else 2 * points[0][1]


def _less(sample: Sample, seconds: float) -> Sample:
    return sample._replace(seconds=max(sample.seconds - seconds, LEAST_S))


def _at(rate: Rate, size: float) -> float:
    return (rate.operator_s or 0.0) + size / (rate.bytes_per_s or FASTEST)


def link_of(parts: Parts, times: Times) -> Link:
    """Return the link between the ranks, with every kind of collective by size; its general numbers are those of all_reduce."""
    kinds: dict[str, tuple[Stretch, ...]] = {}
    for kind in KINDS:
        samples = [(d.bytes, seconds_of(times, d)) for d in parts.differences if d.what == kind]
        kinds[kind] = fit_stretches(kind, parts.ranks, samples)
    general = kinds["all_reduce"][0]
    return Link(general.latency_s, general.bytes_per_s, general.call_s, kinds)


def device_notes(place: str, ranks: int) -> Notes:
    """Return comments on how the numbers of a device were measured. `place`: the device's table in the file."""
    about = "one rank alone" if ranks == 1 else f"{ranks} ranks that all work"
    few = f"{MANY} blocks of one row, {FEW} of {ROWS}"
    return {
        place: f"{about}; an operator takes the time by which a chain of products takes longer with it than without it",
        f"{place}.flops_per_s": "the most of any product, by dtype",
        f"{place}.memory_bytes_per_s": f"additions: {ROWS} rows of {WIDTH} against one",
        f"{place}.operator_s": "additions of one row",
        f"{place}.program_s": "a program of one addition, as the driver sees it, less the addition",
        f"{place}.matmul": (
            f"[rows, FLOP/s] of products of weights stored [n, k] with {WIDTH} columns by {SMALL}, {HIDDEN} and {LARGE}\n"
            "(one row) and by the middle one (several); a GEMV reads twice as many bytes a second as its FLOP/s in float32"
        ),
        f"{place}.operators": (
            f"overhead and rates of operators: {few}, with a cache of which {SEEN:.0%} is valid for Attention. Reshape and\n"
            "views: a third of Reshape, Transpose, Reshape. Gather: with an addition, minus the addition. TensorScatter: the\n"
            "time of whole decoder layers minus that of everything else"
        ),
    }


def link_notes(ranks: int) -> Notes:
    """Return comments on how the numbers of the link were measured."""
    return {
        "link": (
            f"between {ranks} ranks: chains of products and collectives, minus the same products on each rank alone, then scaled\n"
            "to the time that decoder layers leave for collectives. Time that does not depend on the size counts half as latency\n"
            "and half as call, since one number of ranks cannot tell them apart"
        )
    }
