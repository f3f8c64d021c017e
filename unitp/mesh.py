"""A mesh arranges ranks in a grid with named axes; rank numbers run row-major over the axes in the order given.

`Mesh(dp=2, tp=3)` has 6 ranks; rank 4 has coordinates dp=1, tp=1. The ranks that differ along one axis only form a
group of that axis: `mesh.groups("tp") == [(0, 1, 2), (3, 4, 5)]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from unitp.errors import MeshError
from unitp.texts import cut, shortened

MOST_RANKS = 1024
MOST_AXES = 8
DIGITS = 9
"""The most digits of a size in a text."""


@dataclass(frozen=True, init=False)
class Mesh:
    """Named axes with their sizes, major to minor: `Mesh(dp=2, tp=3)`, or `Mesh.parse("dp=2,tp=3")`. `Mesh()` is one rank.

    Raises MeshError for a name that is not an identifier, a size that is not a whole number from 1 on, or more than `MOST_RANKS` ranks.
    """

    axes: tuple[tuple[str, int], ...]

    def __init__(self, /, **axes: int) -> None:
        object.__setattr__(self, "axes", tuple(axes.items()))
        if len(self.axes) > MOST_AXES:
            raise MeshError(f"a mesh has {len(self.axes)} axes", hint=f"At most {MOST_AXES} can be planned for.")
        for name, size in self.axes:
            if not name.isidentifier():
                raise MeshError(
                    f'mesh axis "{cut(name)}" is not a name', hint="An axis is written NAME=SIZE, as in tp=2."
                )
            if type(size) is not int or size < 1:
                raise MeshError(
                    f"mesh axis {cut(name)} has size {shortened(size)}", hint="Sizes are whole numbers from 1 on."
                )
            if size > MOST_RANKS:
                raise MeshError(
                    f"mesh axis {cut(name)} has size {shortened(size)}", hint=f"A mesh has at most {MOST_RANKS} ranks."
                )
        if prod(size for _, size in self.axes) > MOST_RANKS:
            raise MeshError(f"mesh {self} has more than {MOST_RANKS} ranks", hint="Make its axes shorter.")

    @classmethod
    def parse(cls, text: str) -> Mesh:
        """Return the mesh that a text such as `"dp=1,tp=2"` describes. Raises MeshError with the part that is wrong."""
        axes: dict[str, int] = {}
        for part in filter(None, text.replace(" ", "").split(",")):
            name, _, size = part.partition("=")
            if not (size.isdecimal() and size.isascii() and len(size) <= DIGITS):
                raise MeshError(
                    f'cannot read mesh "{cut(text)}": "{cut(part)}" is not NAME=SIZE', hint="Write it as in dp=1,tp=2."
                )
            if name in axes:
                raise MeshError(f'mesh "{cut(text)}" names axis {cut(name)} twice', hint="Give every axis once.")
            axes[name] = int(size)
        return cls(**axes)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of each axis, by name."""
        return dict(self.axes)

    @cached_property
    def size(self) -> int:
        """The number of ranks."""
        return prod(size for _, size in self.axes)

    def axis_size(self, axis: str) -> int:
        """Return the size of an axis of the mesh."""
        return self.sizes[axis]

    def coords(self, rank: int) -> dict[str, int]:
        """Return the coordinate of `rank` on every axis."""
        out: dict[str, int] = {}
        for name, size in reversed(self.axes):
            rank, out[name] = divmod(rank, size)
        return out

    def rank(self, coords: dict[str, int]) -> int:
        """Return the rank with these coordinates, one for every axis."""
        number = 0
        for name, size in self.axes:
            number = number * size + coords[name]
        return number

    def flat(self, rank: int, axes: tuple[str, ...]) -> int:
        """Return the flat coordinate of `rank` over `axes` (major to minor); 0 over no axes."""
        coords, number = self.coords(rank), 0
        for axis in axes:
            number = number * self.sizes[axis] + coords[axis]
        return number

    def count(self, axes: tuple[str, ...]) -> int:
        """Return the number of flat coordinates over `axes`."""
        return prod(self.sizes[axis] for axis in axes)

    def groups(self, axis: str) -> list[tuple[int, ...]]:
        """Return the groups of `axis`: ranks that differ only in this coordinate, in its order."""
        found: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for rank in range(self.size):
            rest = tuple((name, at) for name, at in self.coords(rank).items() if name != axis)
            found.setdefault(rest, []).append(rank)
        return [tuple(ranks) for ranks in found.values()]

    def group_of(self, rank: int, axis: str) -> tuple[int, ...]:
        """Return the group of `axis` that `rank` is in."""
        return next(group for group in self.groups(axis) if rank in group)

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.axes) or "one rank"

    def __repr__(self) -> str:
        return f"Mesh({', '.join(f'{name}={size}' for name, size in self.axes)})"
