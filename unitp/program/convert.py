"""Conversion of a tensor from one layout to another: the shortest list of slices and collectives in a fixed order.

First come slices that need no communication (they make everything after them smaller). Then come sums (reduce_scatter
if the target splits a dim over the same axis), all_to_all, gathers of minor axes until the held interval contains the
target's, the remaining slices, and masks. So unequal bounds on the same axes are converted by gather and slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from unitp.errors import ProgramError
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Instruction,
    Mask,
    ReduceScatter,
    Slice,
)

Step = tuple[Instruction, Layout]
"""An instruction (its value names still empty) and the layout that it produces."""


def hull(split: Split, mesh: Mesh) -> Split | None:
    """Return the split after joining pieces over the minor axis, or None if the whole dim is joined."""
    *axes, minor = split.axes
    if not axes:
        return None
    n = mesh.axis_size(minor)
    runs = [split.intervals[i : i + n] for i in range(0, len(split.intervals), n)]
    joined = []
    for run in runs:
        full = [i for i in run if i[1] > i[0]] or [(run[0][0], run[0][0])]
        joined.append((full[0][0], max(b for _, b in full)))
    return Split(tuple(axes), tuple(joined))


def within(inner: Split | None, outer: Split | None, mesh: Mesh) -> bool:
    """Say whether every rank's interval of `inner` lies in its interval of `outer`. The axes of `outer` are the first of `inner`."""
    if outer is None:
        return True
    if inner is None or inner.axes[: len(outer.axes)] != outer.axes:
        return False
    per = mesh.count(inner.axes[len(outer.axes) :])
    return all(
        a == b or outer.intervals[i // per][0] <= a <= b <= outer.intervals[i // per][1]
        for i, (a, b) in enumerate(inner.intervals)
    )


@lru_cache(maxsize=65536)
def steps(source: Layout, target: Layout, mesh: Mesh) -> tuple[Step, ...]:
    """Return the instructions that convert a tensor from layout `source` to `target`, each with the layout after it.

    Both layouts are bound. Raises ProgramError if no instructions lead there, for instance to a partial maximum.
    """
    if source == target:
        return ()
    conversion = _Conversion(source, target, mesh)
    found = tuple(conversion.run())
    if conversion.now != target:
        raise ProgramError(f"no conversion from {source} to {target} (reached {conversion.now}); report this")
    return found


class _Conversion:
    def __init__(self, source: Layout, target: Layout, mesh: Mesh) -> None:
        self.now, self.target, self.mesh = source, target, mesh

    def run(self) -> Iterator[Step]:
        yield from self.slices()
        yield from self.sums()
        yield from self.exchanges()
        yield from self.gathers()
        yield from self.slices()
        yield from self.masks()

    def become(
        self, instruction: Instruction, dims: dict[int, Split | None], partial: tuple[str, ...] | None = None
    ) -> Step:
        new = tuple(dims.get(i, s) for i, s in enumerate(self.now.dims))
        left = self.now.partial if partial is None else partial
        self.now = Layout(new, left, self.now.reduction if left else "sum")
        return instruction, self.now

    def slices(self) -> Iterator[Step]:
        for dim, (have, want) in enumerate(zip(self.now.dims, self.target.dims, strict=True)):
            if want is None or have == want or not within(want, have, self.mesh):
                continue
            added = want.axes[len(have.axes) if have else 0 :]
            if not set(added) & {*self.now.axes, *self.now.partial}:
                yield self.become(Slice("", "", dim), {dim: want})

    def sums(self) -> Iterator[Step]:
        for axis in self.now.partial:
            if axis in self.target.partial and self.now.reduction == self.target.reduction:
                continue
            left = tuple(a for a in self.now.partial if a != axis)
            dim = self.scatter_dim(axis) if self.now.reduction == "sum" else None
            if dim is None:
                yield self.become(AllReduce("", "", axis, self.now.reduction), {}, left)
            else:
                yield self.become(ReduceScatter("", "", axis, dim), {dim: self.target.dims[dim]}, left)

    def scatter_dim(self, axis: str) -> int | None:
        for dim, (have, want) in enumerate(zip(self.now.dims, self.target.dims, strict=True)):
            if want and want.axes[-1] == axis and not want.overlaps and hull(want, self.mesh) == have:
                return dim
        return None

    def exchanges(self) -> Iterator[Step]:
        for source, have in enumerate(self.now.dims):
            if have is None or len(have.axes) > 1 or self.target.dims[source] is not None:
                continue
            for dim, want in enumerate(self.target.dims):
                if want and want.axes == have.axes and self.now.dims[dim] is None:
                    yield self.become(AllToAll("", "", have.axes[0], source, dim), {source: None, dim: want})
                    break

    def gathers(self) -> Iterator[Step]:
        for dim, want in enumerate(self.target.dims):
            while (have := self.now.dims[dim]) is not None and not within(want, have, self.mesh):
                yield self.become(AllGather("", "", have.axes[-1], dim), {dim: hull(have, self.mesh)})

    def masks(self) -> Iterator[Step]:
        for axis in self.target.partial:
            if axis not in self.now.partial:
                partial = tuple(sorted((*self.now.partial, axis)))
                yield self.become(Mask("", "", axis), {}, partial)
