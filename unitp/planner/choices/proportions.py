"""Intervals for heterogeneous devices: the share of a coordinate follows its weight, the speed or the memory of its devices.

    edge i of u units    round( u * (w_0 + ... + w_(i-1)) / (w_0 + ... + w_(n-1)) ),    exactly, a half goes up

An edge depends only on the shares before it. So the intervals over two axes nest in those over the first if the weight of a
coordinate is the sum of the weights below it. That is one way to weigh a split that uses only some axes (`_summed`). The other
is the slowest device that shares the coordinate (`_slowest`), which is right if the ranks along the other axes repeat the work.
Both are the same unless devices differ along both axes.

The measures are the FLOP/s of products, the bytes/s of memory (if products were measured by rows: the FLOP/s at one row), and the
size of memory (a device without a limit counts as one that holds every parameter). A measure in which all devices are alike
gives only even intervals. On three or more axes, where candidates are many, FLOP/s alone measure speed, and only sums are used.
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
"""The shares of the coordinates over some axes; they add up to one."""

NEAR = Fraction(1, 200)
"""Shares that differ by less count as equal."""

MANY_AXES = 3
"""From this many axes on, fewer measures and weights are tried."""

MANY_ROWS = 512
"""The rows of a product that stand for prefill."""


def weighted_cuts(weights: Sequence[Fraction], size: int, unit: int = 1) -> tuple[Interval, ...]:
    """Return one interval for each weight, over `size` rows in whole `unit`s; intervals may be empty."""
    units, total = -(-size // unit), sum(weights)
    before = accumulate(weights, initial=Fraction(0))
    edges = [min(floor(units * w / total + Fraction(1, 2)) * unit, size) for w in before]
    return tuple(pairwise(edges))


def weighted_groups(weights: Sequence[Fraction], groups: int) -> tuple[Interval, ...]:
    """Return an interval of ranks, at least one, for each group, so that the weights of groups are about equal.

    There must be at least as many weights (one for each rank) as groups.
    """
    sums = list(accumulate(weights, initial=Fraction(0)))
    edges = [0]
    for group in range(1, groups):
        wanted = sums[-1] * group / groups
        allowed = range(edges[-1] + 1, len(weights) - (groups - group) + 1)
        edges.append(min((abs(sums[edge] - wanted), edge) for edge in allowed)[1])
    return tuple(pairwise([*edges, len(weights)]))


class Weighing:
    """The weights of the coordinates of a mesh on some machines.

    axes     the axes whose splits may be weighted, in mesh order
    values   a tuple with the value of each rank, for every measure in which ranks differ
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
        """Return the weights of the coordinates over `axes` (None: even), with the bits of the measures that they follow.

        Bit 0 is even, bit i + 1 is `values[i]`. Weights that are nearly the same are merged.
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
        """Return the value of the slowest rank at each coordinate."""
        found: dict[int, Fraction] = {}
        for rank, own in enumerate(value):
            at = self.mesh.flat(rank, axes)
            found[at] = min(own, found.get(at, own))
        return [found[at] for at in range(self.mesh.count(axes))]

    def _summed(self, value: Sequence[Fraction], axes: tuple[str, ...]) -> list[Fraction]:
        """Return the sum, at each coordinate, over the coordinates of all `self.axes` in it, each as slow as its slowest rank."""
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
    """Return the FLOP/s at this many rows if they were measured; else the device's FLOP/s, or for one row its memory's bytes/s."""
    if points := device.contractions("float32"):
        return Fraction(float(at_rows(points, rows)))
    return Fraction(device.flops("float32") if rows > 1 else device.memory_bytes_per_s)


def _shares(weights: Sequence[Fraction]) -> Weights:
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def _differ(a: Weights, b: Weights) -> bool:
    return any(abs(x - y) >= NEAR for x, y in zip(a, b, strict=True))
