"""Layouts as bars: one bar for each dim that is split, with a row for each rank that shows its interval in per cent of the dim."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from unitp.layout import Layout
from unitp.mesh import Mesh

MOST_RANKS = 16
"""At most this many ranks are drawn."""


class Piece(msgspec.Struct, frozen=True):
    """The part of a dim that one rank holds: `left` edge and `width`, in per cent, and the same as `text`."""

    rank: int
    left: float
    width: float
    text: str


class Bar(msgspec.Struct, frozen=True):
    """One dim of a tensor. `dim` "": the whole tensor, which every rank holds."""

    dim: str
    text: str
    pieces: tuple[Piece, ...]
    partial: bool = False


def shown(mesh: Mesh) -> range:
    """Return the ranks that are drawn."""
    return range(min(mesh.size, MOST_RANKS))


def bars(layout: Layout, shape: Sequence[int], mesh: Mesh) -> tuple[Bar, ...]:
    """Return a bar for each dim that is split, or one bar for a tensor that is not split. `shape` is global."""
    bound, partial = layout.bind(shape, mesh), bool(layout.partial)
    found = []
    for dim, (split, size) in enumerate(zip(bound.dims, shape, strict=True)):
        if split is not None:
            pieces = tuple(_piece(rank, split.at(rank, mesh), size, f"of dim {dim}") for rank in shown(mesh))
            found.append(Bar(f"dim {dim}", f"dim {dim} of {size} rows over {split.over}", pieces, partial))
    if found:
        return tuple(found)
    what = layout.pending or "all of it"
    return (Bar("", what, tuple(Piece(rank, 0.0, 100.0, f"rank {rank}: {what}") for rank in shown(mesh)), partial),)


def _piece(rank: int, interval: tuple[int, int], size: int, of: str) -> Piece:
    a, b = interval
    text = f"rank {rank}: rows {a} to {b} {of}" if b > a else f"rank {rank}: nothing {of}"
    return Piece(rank, round(100 * a / size, 3), round(100 * (b - a) / size, 3), text)


def grid(mesh: Mesh) -> tuple[list[tuple[int, float, float]], list[tuple[str, float, float, float, float]]]:
    """Return ranks as (rank, x, y) on a grid, with the last axis across, and lines (axis, x1, y1, x2, y2) along the groups."""
    across = mesh.axes[-1][1] if mesh.axes else 1
    at = {rank: (float(rank % across), float(rank // across)) for rank in shown(mesh)}
    lines = []
    for axis, size in mesh.axes:
        for group in mesh.groups(axis) if size > 1 else ():
            drawn = [rank for rank in group if rank in at]
            lines += [(axis, *at[a], *at[b]) for a, b in pairwise(drawn)]
    return [(rank, x, y) for rank, (x, y) in at.items()], lines
