"""Steps for the explicit instructions of one rank: slice, pad and join around a backend's equal-shaped collectives.

Each step is a function `fn(x) -> y` for one instruction, with all bounds computed beforehand. An instruction has
no step if no member of the group holds anything. Values of local size zero are None. Only the first holder sends an overlapped row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unitp.engine.primitives import Collectives, Primitives, Tensor
from unitp.engine.transport import Alone, Gathered
from unitp.layout import Interval, owned
from unitp.program.instructions import (
    AllGather,
    AllReduce,
    AllToAll,
    Instruction,
    Local,
    Mask,
    Program,
    ReduceScatter,
    Slice,
)
from unitp.program.rank import intervals, local_shape

Step = Callable[[Tensor], Tensor]


class Exchange:
    """Makes the steps of one rank of a program."""

    def __init__(self, program: Program, rank: int, primitives: Primitives, collectives: Collectives) -> None:
        self.program, self.rank, self.p, self._collectives = program, rank, primitives, collectives
        self._alone = Alone()

    def step(self, instruction: Instruction) -> Step | None:
        """Return the step of an instruction, or None if there is nothing to do. Local has no step here."""
        if self.idle(instruction):
            return None
        match instruction:
            case AllReduce():
                return self.all_reduce(instruction)
            case AllGather():
                return self.all_gather(instruction)
            case ReduceScatter():
                return self.reduce_scatter(instruction)
            case AllToAll():
                return self.all_to_all(instruction)
            case Slice():
                return self.slice(instruction)
            case Mask():
                return self.mask(instruction)
            case Local():
                raise TypeError(f"{instruction} is not an explicit instruction")

    def idle(self, instruction: Instruction) -> bool:
        """Say whether every rank that takes part holds an empty output. Always true of Local."""
        if isinstance(instruction, Local):
            return True
        alone = isinstance(instruction, Slice | Mask)
        members = (self.rank,) if alone else self.program.mesh.group_of(self.rank, instruction.axis)  # type: ignore[union-attr]
        return all(0 in local_shape(self.program, instruction.output, member) for member in members)

    def all_reduce(self, at: AllReduce) -> Step:
        reduce, axis, reduction = self.among(at.axis).all_reduce, at.axis, at.reduction
        return lambda x: reduce(x, axis, reduction)

    def all_gather(self, at: AllGather) -> Step:
        p, axis, dim, gather = self.p, at.axis, at.dim, self.among(at.axis).all_gather
        held = self.members(at.input, axis, dim)
        mine = held[self.place(axis)]
        parts = owned(held)
        counts = [b - a for a, b in parts]
        cut = self.cut(dim, mine, parts[self.place(axis)])
        pad = self.pad(at.input, dim, max(counts))
        trim = [self.cut(dim, (0, max(counts)), (0, n)) for n in counts]

        shape = local_shape(self.program, at.output, self.rank)
        outermost = all(n == 1 for n in shape[:dim])

        def whole(x: Tensor) -> Tensor:
            pieces = gather(x, axis)
            return p.reshape(pieces.whole, shape) if isinstance(pieces, Gathered) else _joined(p, pieces, dim)

        if outermost and len(set(counts)) == 1 and list(held) == list(parts):
            return whole

        def step(x: Tensor) -> Tensor:
            pieces = gather(pad(cut(x)), axis)
            return _joined(p, [t(piece) for t, piece in zip(trim, pieces, strict=True)], dim)

        return step

    def reduce_scatter(self, at: ReduceScatter) -> Step:
        axis, dim, scatter = at.axis, at.dim, self.among(at.axis).reduce_scatter
        whole = intervals(self.program, at.input, self.rank)[dim]
        wanted = self.members(at.output, axis, dim)
        largest = max(b - a for a, b in wanted)
        cuts = [self.cut(dim, whole, part) for part in wanted]
        pad = self.pad(at.input, dim, largest)
        a, b = wanted[self.place(axis)]
        trim = self.cut(dim, (0, largest), (0, b - a))
        return lambda x: trim(scatter([pad(cut(x)) for cut in cuts], axis))

    def all_to_all(self, at: AllToAll) -> Step:
        p, axis, source, exchange = self.p, at.axis, at.source, self.among(at.axis).all_to_all
        me, held = self.place(axis), self.members(at.input, axis, at.source)
        parts = owned(held)
        rows = [b - a for a, b in parts]
        wanted = self.members(at.output, axis, at.dim)
        columns = max(b - a for a, b in wanted)
        whole = (0, self.program.values[at.input].shape[at.dim])
        own = self.cut(source, held[me], parts[me])
        cuts = [self.cut(at.dim, whole, part) for part in wanted]
        pad = self.pad(at.input, source, max(rows), at.dim, columns)
        narrow = self.cut(at.dim, (0, columns), (0, wanted[me][1] - wanted[me][0]))
        trim = [self.cut(source, (0, max(rows)), (0, n)) for n in rows]

        def step(x: Tensor) -> Tensor:
            mine = own(x)
            pieces = exchange([pad(cut(mine)) for cut in cuts], axis)
            return _joined(p, [narrow(t(piece)) for t, piece in zip(trim, pieces, strict=True)], source)

        return step

    def slice(self, at: Slice) -> Step:
        have, want = (intervals(self.program, name, self.rank)[at.dim] for name in (at.input, at.output))
        return self.cut(at.dim, have, want)

    def mask(self, at: Mask) -> Step:
        if self.place(at.axis) == 0:
            return lambda x: x
        p, value, shape = self.p, self.program.values[at.output], local_shape(self.program, at.output, self.rank)
        return lambda x: p.full(shape, 0, value.dtype)

    # pieces

    def among(self, axis: str) -> Collectives:
        """Return the collectives of this rank's group along `axis`. A rank that is alone there needs no transport."""
        return self._collectives if self.program.mesh.axis_size(axis) > 1 else self._alone

    def place(self, axis: str) -> int:
        """Return the coordinate of this rank on `axis`."""
        return self.program.mesh.coords(self.rank)[axis]

    def members(self, name: str, axis: str, dim: int) -> Sequence[Interval]:
        """Return the interval of `dim` of a value that each member of the group along `axis` holds, in the group's order."""
        group = self.program.mesh.group_of(self.rank, axis)
        return [intervals(self.program, name, member)[dim] for member in group]

    def cut(self, dim: int, have: Interval, want: Interval) -> Step:
        """Return a step from a piece with the rows `have` of `dim` to its rows `want`; None if there are no such rows."""
        p, (a, b) = self.p, (want[0] - have[0], want[1] - have[0])
        if a >= b:
            return lambda x: None
        if have == want:
            return lambda x: x
        return lambda x: None if x is None else p.slice(x, dim, a, b)

    def pad(self, name: str, dim: int, size: int, second: int = -1, size2: int = -1) -> Step:
        """Return a step that fills a piece of value `name` with zeros to `size` along `dim` (and `size2` along `second`)."""
        p, dtype = self.p, self.program.values[name].dtype
        sizes = {dim: size, second: size2} if second >= 0 else {dim: size}
        local = local_shape(self.program, name, self.rank)
        full = tuple(sizes.get(i, n) for i, n in enumerate(local))

        def step(x: Tensor) -> Tensor:
            if x is None:
                return p.full(full, 0, dtype)
            for along, wanted in sizes.items():
                shape = p.shape(x)
                if missing := wanted - shape[along]:
                    zeros = p.full((*shape[:along], missing, *shape[along + 1 :]), 0, dtype)
                    x = p.concat([x, zeros], along)
            return x

        return step


def _joined(p: Primitives, pieces: Sequence[Tensor], dim: int) -> Tensor:
    held = [piece for piece in pieces if piece is not None]
    if len(held) > 1:
        return p.concat(held, dim)
    return held[0] if held else None
