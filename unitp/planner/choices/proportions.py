"""Cuts for unlike devices: the part of a coordinate follows its weight, which is the speed or the memory of its devices.

    edge i of u units    round( u * (w_0 + ... + w_(i-1)) / (w_0 + ... + w_(n-1)) ),    exactly, a half goes up

An edge depends on the share before it alone. So cuts over two axes nest with those over the first wherever the weight of a
coordinate is the sum of the weights below it; that is one way to weigh axes of which a split uses only some (`summed`). The
other is by the slowest device that shares the coordinate (`slowest`), which is right where the other axes repeat the work.
The two are the same unless devices are unlike along both axes.

What is measured: FLOP/s of products, bytes/s of memory (where products were measured by rows: FLOP/s at one row), and size
of memory (a device without a limit counts as one that holds every parameter). A measure in which all devices are alike
gives no cuts beside the even ones. On three axes and more, where candidates are many, FLOP/s stand for speed and sums for
the other axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from math import floor, isfinite

from unitp.cost import Device, Machine
from unitp.cost.device import at_rows
from unitp.layout import Interval
from unitp.mesh import Mesh

Weights = tuple[Fraction, ...]
"""Shares of the coordinates of some axes, which add up to one."""

NEAR = Fraction(1, 200)
"""Shares that differ by less are taken as equal: another cut would be worth nothing."""

MANY_AXES = 3
MANY_ROWS = 512


def weighted_cuts(weights: Sequence[Fraction], size: int, unit: int = 1) -> tuple[Interval, ...]:
    """Intervals over `size` rows in whole `unit`s, as many as there are weights; parts may be empty."""
    units, total = -(-size // unit), sum(weights)
    before = accumulate(weights, initial=Fraction(0))
    edges = [min(floor(units * w / total + Fraction(1, 2)) * unit, size) for w in before]
    return tuple(pairwise(edges))


def weighted_groups(weights: Sequence[Fraction], groups: int) -> tuple[Interval, ...]:
    """Whole ranks for each of fewer groups, at least one, so that the weights of groups are as equal as that allows."""
    sums = list(accumulate(weights, initial=Fraction(0)))
    edges = [0]
    for group in range(1, groups):
        wanted = sums[-1] * group / groups
        allowed = range(edges[-1] + 1, len(weights) - (groups - group) + 1)
        edges.append(min((abs(sums[edge] - wanted), edge) for edge in allowed)[1])
    return tuple(pairwise([*edges, len(weights)]))


class Weighing:
    """How the coordinates of a mesh weigh on some machines. `axes`: those whose cuts are weighted at all, in mesh order.

    `values` are of each rank, a tuple for every measure in which ranks are unlike.
    """

    def __init__(self, machines: Sequence[Machine], mesh: Mesh, axes: Sequence[str], everything: int) -> None:
        self.mesh, self.axes = mesh, tuple(axes)
        self.values: list[tuple[Fraction, ...]] = []
        for machine in machines:
            devices = [machine.working(rank, mesh) for rank in range(mesh.size)]
            if any(device != devices[0] for device in devices):
                for measure in _measures(devices, everything, few=len(axes) >= MANY_AXES):
                    value = tuple(map(measure, devices))
                    shares = _shares(value)
                    if all(_differ(shares, _shares(have)) for have in ((Fraction(1),) * len(value), *self.values)):
                        self.values.append(value)

    def families(self, axes: tuple[str, ...]) -> dict[Weights | None, int]:
        """The weights of the coordinates over `axes` (None: even), and by which measures: bit 0 is even, bit i + 1 `values[i]`.

        Weights that come to (nearly) the same are one.
        """
        count = self.mesh.count(axes)
        even = (Fraction(1, count),) * count
        found: dict[Weights, int] = {even: 1}
        for number, value in enumerate(self.values, 1):
            ways = [self._summed(value, axes)] + ([self._slowest(value, axes)] if len(self.axes) < MANY_AXES else [])
            for shares in map(_shares, ways):
                same = next((have for have in found if not _differ(shares, have)), shares)
                found[same] = found.get(same, 0) | 1 << number
        return {None if shares == even else shares: bits for shares, bits in found.items()}

    def _slowest(self, value: Sequence[Fraction], axes: tuple[str, ...]) -> list[Fraction]:
        """The least of the ranks at each coordinate."""
        found: dict[int, Fraction] = {}
        for rank, own in enumerate(value):
            at = self.mesh.flat(rank, axes)
            found[at] = min(own, found.get(at, own))
        return [found[at] for at in range(self.mesh.count(axes))]

    def _summed(self, value: Sequence[Fraction], axes: tuple[str, ...]) -> list[Fraction]:
        """At each coordinate the sum over all finer ones, each of which is as slow as its slowest rank."""
        finest = self._slowest(value, self.axes)
        found = [Fraction(0)] * self.mesh.count(axes)
        done = set()
        for rank in range(self.mesh.size):
            if (fine := self.mesh.flat(rank, self.axes)) not in done:
                done.add(fine)
                found[self.mesh.flat(rank, axes)] += finest[fine]
        return found


def _measures(devices: Sequence[Device], everything: int, few: bool) -> Iterator[Callable[[Device], Fraction]]:
    yield lambda device: _product_speed(device, MANY_ROWS)
    if not few:
        yield lambda device: _product_speed(device, 1)
    limits = [device.memory_bytes for device in devices if isfinite(device.memory_bytes)]
    if limits:
        unlimited = Fraction(max(*limits, everything))
        yield lambda device: Fraction(device.memory_bytes) if isfinite(device.memory_bytes) else unlimited


def _product_speed(device: Device, rows: int) -> Fraction:
    """FLOP/s where these were measured by rows; else of few rows bytes/s, which is what they wait for."""
    if points := device.contractions("float32"):
        return Fraction(float(at_rows(points, rows)))
    return Fraction(device.flops("float32") if rows > 1 else device.memory_bytes_per_s)


def _shares(weights: Sequence[Fraction]) -> Weights:
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def _differ(a: Weights, b: Weights) -> bool:
    return any(abs(x - y) >= NEAR for x, y in zip(a, b, strict=True))
