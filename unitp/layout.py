"""Who holds which part of a tensor: for every dim the axes that split it and one interval per flat coordinate over them.

    Split(("tp",), ((0, 5), (5, 9)))          9 heads over 2 ranks
    Layout((None, split), partial=("dp",))    dim 1 split over tp; each rank along dp holds one term of a sum

Intervals are monotone and leave no gap; they may be unequal, empty, or overlap (KV heads under split query heads). The tensor is
replicated over an axis that is in no dim and not in `partial`. A split without intervals is *open*: it is even over a size that is
known only when a program is lowered (the batch), and `bind` gives it intervals. A row in several intervals belongs to its first
holder in the group of a collective (`owned`).

Both have one notation, which plan files store, pins accept, and programs, explanations and errors print:

    SPLIT     AXIS*AXIS...[START:STOP START:STOP ...] | AXIS*AXIS...[even]       tp[0:5 5:9], dp[even]
    LAYOUT    SPLIT | -  for each dim, with commas between them; |sum:AXIS+AXIS... or |max:AXIS+AXIS... if it is partial

`tp[0:5 5:9],-` is split along dim 0, and `-,-|sum:tp` is partial. `str` writes them, `parse_split` and `parse_layout` read them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from unitp.errors import PlanError
from unitp.mesh import Mesh
from unitp.texts import cut

Interval = tuple[int, int]
Reduction = Literal["sum", "max"]


def cuts(parts: int, size: int, unit: int = 1) -> tuple[Interval, ...]:
    """Return `parts` even intervals over `size` rows in whole `unit`s.

    Edge i of u units is `ceil(i*u/parts)`, so that the intervals over two axes nest in those over the first.
    """
    units = -(-size // unit)
    edges = [min(-(-i * units // parts) * unit, size) for i in range(parts + 1)]
    return tuple(itertools.pairwise(edges))


class Split(msgspec.Struct, frozen=True, array_like=True):
    """How one dim is split: `axes`, major to minor, and one interval per flat coordinate over them (no intervals: open)."""

    axes: tuple[str, ...]
    intervals: tuple[Interval, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the split has no intervals yet (`bind`)."""
        return not self.intervals

    def bind(self, size: int, mesh: Mesh) -> Split:
        """Return the split with its intervals, for a dim of `size` rows."""
        return Split(self.axes, cuts(mesh.count(self.axes), size)) if self.open else self

    def at(self, rank: int, mesh: Mesh) -> Interval:
        """Return the interval that `rank` holds. The split must be bound."""
        return self.intervals[mesh.flat(rank, self.axes)]

    @property
    def overlaps(self) -> bool:
        """Whether intervals overlap: two coordinates hold the same row."""
        stop = 0
        for a, b in self.intervals:
            if b > a and a < stop:
                return True
            stop = max(stop, b)
        return False

    @property
    def over(self) -> str:
        """The axes as text: `dp*tp`."""
        return "*".join(self.axes)

    @property
    def rows(self) -> str:
        """The intervals as text: `0:5 5:9`, or `even` if the split is open."""
        return "even" if self.open else " ".join(f"{a}:{b}" for a, b in self.intervals)

    def __str__(self) -> str:
        return f"{self.over}[{self.rows}]"


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """The layout of a tensor: a split or None per dim, the axes over which it is partial, and the reduction that they need."""

    dims: tuple[Split | None, ...]
    partial: tuple[str, ...] = ()
    reduction: Reduction = "sum"

    @classmethod
    def replicated(cls, rank: int) -> Layout:
        """Return the layout of a tensor with `rank` dims that every rank of the mesh holds whole."""
        return cls((None,) * rank)

    def bind(self, shape: Sequence[int], mesh: Mesh) -> Layout:
        """Return the layout with intervals in every split, for a tensor of global `shape`."""
        return Layout(
            tuple(s and s.bind(n, mesh) for s, n in zip(self.dims, shape, strict=True)), self.partial, self.reduction
        )

    def intervals(self, shape: Sequence[int], rank: int, mesh: Mesh) -> tuple[Interval, ...]:
        """Return the part of a tensor of global `shape` that `rank` holds: one interval per dim."""
        return tuple(s.at(rank, mesh) if s else (0, n) for s, n in zip(self.dims, shape, strict=True))

    def local_shape(self, shape: Sequence[int], rank: int, mesh: Mesh) -> tuple[int, ...]:
        """Return the shape of the part that `rank` holds of a tensor of global `shape`."""
        return tuple(b - a for a, b in self.intervals(shape, rank, mesh))

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that split a dim."""
        return tuple(axis for s in self.dims if s for axis in s.axes)

    def problems(self, shape: Sequence[int], mesh: Mesh) -> list[str]:
        """Return everything that is wrong with this (bound) layout for a tensor of global `shape` on `mesh`; empty if nothing is."""
        if len(self.dims) != len(shape):
            return [f"has {len(self.dims)} dims, but the tensor has {len(shape)}"]
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

    @property
    def terms(self) -> str:
        """What the layout is partial over as text: `|sum:tp`, or nothing."""
        return f"|{self.reduction}:{'+'.join(self.partial)}" if self.partial else ""

    def text(self, split: Callable[[Split], str] = str) -> str:
        """Return the notation of the layout, with `split` to write its splits. It is empty for a scalar that is not partial."""
        return ",".join(split(s) if s else "-" for s in self.dims) + self.terms

    @property
    def words(self) -> str:
        """The layout for readers: its notation, or `replicated` if nothing is split or partial."""
        return self.text() if self.axes or self.partial else "replicated"

    @property
    def pending(self) -> str:
        """What is partial in words: `a partial sum over dp, tp`, or nothing."""
        return f"a partial {self.reduction} over {', '.join(self.partial)}" if self.partial else ""

    def __str__(self) -> str:
        return self.text()


_SPLIT = re.compile(r"([^\[\]*,|]+(?:\*[^\[\]*,|]+)*)\[(even|\d{1,15}:\d{1,15}(?: \d{1,15}:\d{1,15})*)\]", re.ASCII)
_TERMS = re.compile(r"(sum|max):([^+*,:|\[\]]+(?:\+[^+*,:|\[\]]+)*)")


def parse_split(text: str) -> Split:
    """Return the split that a text such as `tp[0:5 5:9]` or `dp[even]` stands for; whether it fits a mesh is not looked at.

    Raises PlanError if the text is not in the notation.
    """
    match = _SPLIT.fullmatch(text)
    if match is None:
        raise PlanError(f'"{cut(text)}" is not a split; write one as AXIS[START:STOP ...] or AXIS[even]')
    pairs = [part.split(":") for part in match[2].split()] if match[2] != "even" else []
    return Split(tuple(match[1].split("*")), tuple((int(a), int(b)) for a, b in pairs))


def parse_layout(text: str, split: Callable[[str], Split] = parse_split) -> Layout:
    """Return the layout that a text such as `-,tp[0:5 5:9]` or `-|sum:tp` stands for, with `split` to read its splits.

    Raises PlanError if the text is not in the notation.
    """
    dims, bar, tail = text.partition("|")
    terms = _TERMS.fullmatch(tail) if bar else None
    if bar and terms is None:
        raise PlanError(f'"{cut(text)}" is not a layout; write partial ones as DIMS|sum:AXIS or DIMS|max:AXIS')
    found = tuple(None if dim == "-" else split(dim) for dim in dims.split(",")) if dims else ()
    if terms is None:
        return Layout(found)
    how: Reduction = "max" if terms[1] == "max" else "sum"
    return Layout(found, tuple(terms[2].split("+")), how)


def _split_problems(split: Split, size: int, mesh: Mesh) -> list[str]:
    if not split.axes:
        return ["a split needs an axis"]
    if len(split.intervals) != mesh.count(split.axes):
        return [f"{len(split.intervals)} intervals for {mesh.count(split.axes)} coordinates over {split.over}"]
    found, start, stop = [], 0, 0
    for a, b in split.intervals:
        if not 0 <= a <= b <= size:
            found.append(f"interval {a}:{b} is not within 0:{size}")
        elif a < b:
            if a > stop:
                found.append(f"no rank holds rows {stop}:{a}")
            if a < start or b < stop:
                found.append(f"interval {a}:{b} is out of order")
            start, stop = a, b
    if not found and stop != size:
        found.append(f"no rank holds rows {stop}:{size}")
    return found


def owned(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return the rows that belong to each holder of overlapping intervals: a row belongs to its first holder."""
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
    """Raise one PlanError with all problems of `layout` for a tensor of global `shape`; `what` names the tensor."""
    if found := layout.problems(shape, mesh):
        raise PlanError(f"layout {layout} of {what} is wrong: " + "; ".join(found))
