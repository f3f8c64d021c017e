"""Who holds which part of a tensor: for every dim the axes that split it and one interval per flat coordinate over them.

    Split(("tp",), ((0, 5), (5, 9)))          9 heads over 2 ranks
    Layout((None, split), partial=("dp",))    dim 1 split over tp; the value is a sum still to be taken over dp

Intervals are monotone and leave no gap; they may be unequal, empty, or overlap (a cover: KV heads under split query
heads). An axis that is in no dim and not in `partial` is replicated. A split without intervals is *open*: even over a
size that is only known when a program is lowered (the batch); `bind` closes it. An overlapped row belongs to its
first holder in the group of the collective at hand (`owned`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import msgspec

from unitp.errors import PlanError
from unitp.mesh import Mesh

Interval = tuple[int, int]
Reduction = Literal["sum", "max"]


def cuts(parts: int, size: int, unit: int = 1) -> tuple[Interval, ...]:
    """`parts` intervals over `size` rows in whole `unit`s; cut i of u units is `ceil(i*u/parts)`, so that cuts over two axes nest."""
    units = -(-size // unit)
    edges = [min(-(-i * units // parts) * unit, size) for i in range(parts + 1)]
    return tuple(itertools.pairwise(edges))


class Split(msgspec.Struct, frozen=True, array_like=True):
    """How one dim is split: `axes` major to minor and an interval per flat coordinate over them (none: open)."""

    axes: tuple[str, ...]
    intervals: tuple[Interval, ...] = ()

    @property
    def open(self) -> bool:
        return not self.intervals

    def bind(self, size: int, mesh: Mesh) -> Split:
        """The split with its intervals written out, for a dim of `size` rows."""
        return Split(self.axes, cuts(mesh.count(self.axes), size)) if self.open else self

    def at(self, rank: int, mesh: Mesh) -> Interval:
        """The interval that `rank` holds."""
        return self.intervals[mesh.flat(rank, self.axes)]

    @property
    def covers(self) -> bool:
        """Whether two coordinates hold the same row."""
        stop = 0
        for a, b in self.intervals:
            if b > a and a < stop:
                return True
            stop = max(stop, b)
        return False

    def __str__(self) -> str:
        inside = "even" if self.open else " ".join(f"{a}:{b}" for a, b in self.intervals)
        return f"{'*'.join(self.axes)}[{inside}]"


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """The layout of a tensor: a split or None per dim, and the axes over which it is partial (and how these reduce)."""

    dims: tuple[Split | None, ...]
    partial: tuple[str, ...] = ()
    reduction: Reduction = "sum"

    @classmethod
    def replicated(cls, rank: int) -> Layout:
        return cls((None,) * rank)

    def bind(self, shape: Sequence[int], mesh: Mesh) -> Layout:
        return Layout(
            tuple(s and s.bind(n, mesh) for s, n in zip(self.dims, shape, strict=True)), self.partial, self.reduction
        )

    def intervals(self, shape: Sequence[int], rank: int, mesh: Mesh) -> tuple[Interval, ...]:
        """The part of a tensor of global `shape` that `rank` holds: an interval per dim."""
        return tuple(s.at(rank, mesh) if s else (0, n) for s, n in zip(self.dims, shape, strict=True))

    def local_shape(self, shape: Sequence[int], rank: int, mesh: Mesh) -> tuple[int, ...]:
        return tuple(b - a for a, b in self.intervals(shape, rank, mesh))

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that split a dim."""
        return tuple(axis for s in self.dims if s for axis in s.axes)

    def problems(self, shape: Sequence[int], mesh: Mesh) -> list[str]:
        """Everything that makes this no (bound) layout of a tensor of `shape` on `mesh`; empty when it is one."""
        if len(self.dims) != len(shape):
            return [f"has {len(self.dims)} dims, the tensor {len(shape)}"]
        found = []
        used = [*self.axes, *self.partial]
        for axis in sorted(set(used)):
            if axis not in mesh.sizes:
                found.append(f"axis {axis} is not on the mesh ({mesh})")
            elif used.count(axis) > 1:
                found.append(f"axis {axis} is used {used.count(axis)} times")
        if found:
            return found
        for dim, (split, size) in enumerate(zip(self.dims, shape, strict=True)):
            if split is not None:
                found += [f"dim {dim}: {text}" for text in _split_problems(split, size, mesh)]
        return found

    def __str__(self) -> str:
        dims = ", ".join(str(s) if s else "-" for s in self.dims)
        partial = f" partial {self.reduction} over {','.join(self.partial)}" if self.partial else ""
        return f"[{dims}]{partial}"


def _split_problems(split: Split, size: int, mesh: Mesh) -> list[str]:
    if not split.axes:
        return ["a split needs an axis"]
    if len(split.intervals) != mesh.count(split.axes):
        return [
            f"{len(split.intervals)} intervals for {mesh.count(split.axes)} coordinates over {'*'.join(split.axes)}"
        ]
    found, start, stop = [], 0, 0
    for a, b in split.intervals:
        if not 0 <= a <= b <= size:
            found.append(f"interval {a}:{b} is not within 0:{size}")
        elif a < b:
            if a > stop:
                found.append(f"rows {stop}:{a} are held by nobody")
            if a < start or b < stop:
                found.append(f"interval {a}:{b} is out of order")
            start, stop = a, b
    if not found and stop != size:
        found.append(f"rows {stop}:{size} are held by nobody")
    return found


def owned(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """Of overlapping intervals in order, the rows that belong to each holder: a row belongs to its first holder."""
    out, stop = [], None
    for a, b in intervals:
        if a == b:
            out.append((a, a))
            continue
        start = a if stop is None else max(a, stop)
        out.append((min(start, b), b))
        stop = b if stop is None else max(stop, b)
    return tuple(out)


def require(layout: Layout, shape: Sequence[int], mesh: Mesh, what: str) -> None:
    """Raise PlanError with all problems of `layout` at once, naming `what`."""
    if found := layout.problems(shape, mesh):
        raise PlanError(f"layout {layout} of {what} is wrong: " + "; ".join(found))
