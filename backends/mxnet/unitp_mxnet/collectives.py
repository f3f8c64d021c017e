"""The collectives over MXNet's KVStore `dist_sync`, whose servers add what the workers push to a key.

Every mesh axis has a server of its own, which answers once as many workers have pushed as a group of the axis has
members (`unitp_mxnet.cluster` starts it so). Key k lies on server `9973 k mod servers`. A key belongs to one group, one
size and one dtype for ever; all ranks make keys together: `prepare` makes those of a program, for all groups.

    float32      all_reduce pushes and pulls the sum; data is gathered as the sum of parts, each in its place among zeros
    other types  servers add in float32 whatever the type of the key, and know no integers: bytes are gathered, as words
                 of 16 bits in float32, and added here; float64 is exact so, and so are integers
    max          gathered, then the maximum            reduce_scatter   all_reduce; each takes its part
    all_to_all   all parts are gathered; each takes its column

Gathered data is exact (in float32 -0.0 arrives as 0.0). A float32 sum of three or more is taken in the order of arrival:
its last bit may differ between runs, never between ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from math import prod
from typing import NamedTuple

import numpy as np

from unitp.engine.exchange import Exchange
from unitp.engine.transport import Tally
from unitp.errors import BackendError, ProgramError
from unitp.mesh import Mesh
from unitp.program.instructions import Local, Mask, Program, Slice
from unitp.program.rank import local_shape
from unitp_mxnet import primitives as p
from unitp_mxnet.cluster import server_axes
from unitp_mxnet.operators import Tensor, host, mx, recording
from unitp_mxnet.segments import Recording

PRIME = 9973
"""What MXNet multiplies a key with to find its server."""


class Need(NamedTuple):
    """What a key is for: the group's axis and first rank, and how many float32 numbers."""

    axis: str
    first: int
    size: int


class _Recipes(ABC):
    """`unitp.engine.primitives.Collectives` in terms of sums and gathers of float32 over a group."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        self.groups = {axis: mesh.group_of(rank, axis) for axis, _ in mesh.axes}
        self.places = {axis: group.index(rank) for axis, group in self.groups.items()}

    @abstractmethod
    def add(self, x: Tensor, need: Need, given: int) -> Tensor:
        """The sum of flat float32 arrays over the group, in an array of its own; `given` bytes of each are data."""

    @abstractmethod
    def collect(self, x: Tensor, need: Need, place: int, count: int) -> Tensor:
        """The arrays of the `count` members of the group, stacked, of any type: this rank's is at `place`."""

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        if p.dtype(x) == "float32" and reduction == "sum":
            need = Need(axis, self.groups[axis][0], prod(x.shape))
            return p.reshape(self.add(p.reshape(x, (need.size,)), need, 4 * need.size), x.shape)
        return reduce(p.add if reduction == "sum" else p.maximum, self.all_gather(x, axis))

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        rows = self._gathered(x, axis)
        return [row(rows, i) for i in range(len(self.groups[axis]))]

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        return row(self.all_reduce(stacked(parts), axis, "sum"), self.places[axis])

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        return [row(theirs, self.places[axis]) for theirs in self.all_gather(stacked(parts), axis)]

    def _gathered(self, x: Tensor, axis: str) -> Tensor:
        """What the members of the group give, stacked."""
        first, count, place = self.groups[axis][0], len(self.groups[axis]), self.places[axis]
        if p.dtype(x) != "float32":
            return self.collect(x, Need(axis, first, count * prod(x.shape) * words(p.dtype(x))), place, count)
        size = prod(x.shape)
        zeros, part = p.full((1, size), 0, "float32"), p.reshape(x, (1, size))
        rows = p.concat([part if i == place else zeros for i in range(count)], 0)
        flat = self.add(p.reshape(rows, (count * size,)), Need(axis, first, count * size), 4 * size)
        return p.reshape(flat, (count, *x.shape))


def words(dtype: str) -> int:
    """How many float32 numbers carry one number of a type: its bytes, two at a time where they are more than one."""
    return max(np.dtype(dtype).itemsize // 2, 1)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """The parts as one array [parts, ...]."""
    return p.concat([p.reshape(part, (1, *part.shape)) for part in parts], 0)


def row(x: Tensor, place: int) -> Tensor:
    """One of the parts of an array [parts, ...]."""
    return p.reshape(p.slice(x, 0, place, place + 1), x.shape[1:])


class Collectives(_Recipes):
    """MXNet's KVStore, joined."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        super().__init__(rank, mesh)
        self.tally = Tally()
        self._kv = mx.kv.create("dist_sync")
        if (self._kv.rank, self._kv.num_workers) != (rank, mesh.size):
            raise BackendError(
                f"rank {rank} of {mesh.size} is rank {self._kv.rank} of {self._kv.num_workers} in MXNet's KVStore",
                hint="Its ranks follow the variable PORT; a port was taken by somebody else. Launch again.",
            )
        self._axes = server_axes(mesh)
        self._keys: dict[Need, int] = {}
        self._next = dict.fromkeys(self._axes, 0)
        self.make(Need(axis, group[0], 1) for axis in self._axes for group in mesh.groups(axis))

    def prepare(self, program: Program) -> None:
        """Make the keys of a program. All ranks call this with the same programs, in the same order."""
        self.make(needs(program))

    def make(self, needs: Iterable[Need]) -> None:
        for need in sorted(set(needs) - set(self._keys)):
            self._keys[need] = self._free_key(need.axis)
            self._kv.init(self._keys[need], mx.nd.zeros((need.size,), dtype="float32"))

    def _free_key(self, axis: str) -> int:
        """A new number that lies on the server of `axis`."""
        key = self._next[axis]
        while PRIME * key % len(self._axes) != self._axes.index(axis):
            key += 1
        self._next[axis] = key + 1
        return key

    def add(self, x: Tensor, need: Need, given: int) -> Tensor:
        return host(partial(self._add, self._key(need), given), x, type=(x.shape, "float32"), ordered=True)

    def collect(self, x: Tensor, need: Need, place: int, count: int) -> Tensor:
        type_ = ((count, *x.shape), p.dtype(x))
        return host(partial(self._collect, self._key(need), place, count), x, type=type_, ordered=True)

    def _key(self, need: Need) -> int:
        if need not in self._keys:
            raise ProgramError(f"no key was made for {need.size} numbers over {need.axis}")
        return self._keys[need]

    def _add(self, key: int, given: int, x: Tensor) -> Tensor:
        out = x.copy()
        out.wait_to_read()  # what leads to x is not the collective's time
        with self.tally.call(given):
            self._kv.pushpull(key, out, out=out)
            out.wait_to_read()
        return out

    def _collect(self, key: int, place: int, count: int, x: Tensor) -> Tensor:
        mine = np.ascontiguousarray(p.to_numpy(x))
        unit = np.uint16 if mine.dtype.itemsize > 1 else np.uint8
        flat = mine.reshape(-1).view(unit)
        rows = np.zeros((count, flat.size), np.float32)
        rows[place] = flat
        found = p.to_numpy(self._add(key, mine.nbytes, p.from_numpy(rows.reshape(-1))))
        return p.from_numpy(found.astype(unit).view(mine.dtype).reshape(count, *mine.shape))

    def close(self) -> None:
        """Leave the store; the servers end when all ranks have left."""
        del self._kv


class _Needed(_Recipes):
    """Stands in for a rank of a program that is only looked at: notes what its group will add."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        super().__init__(rank, mesh)
        self.needs: set[Need] = set()

    def add(self, x: Tensor, need: Need, given: int) -> Tensor:
        self.needs.add(need)
        return x

    def collect(self, x: Tensor, need: Need, place: int, count: int) -> Tensor:
        self.needs.add(need)
        return stacked([x] * count)


def needs(program: Program) -> set[Need]:
    """What all groups of all axes will add, found by carrying out the collectives of their first ranks on promises."""
    found: set[Need] = set()
    for axis in server_axes(program.mesh):
        mine = [i for i in program.instructions if not isinstance(i, Local | Slice | Mask) and i.axis == axis]
        for group in program.mesh.groups(axis):
            rank = group[0]
            tape, noted = Recording(), _Needed(rank, program.mesh)
            exchange = Exchange(program, rank, p, noted)
            with recording(tape):
                for instruction in mine:
                    shape = local_shape(program, instruction.input, rank)
                    step = exchange.step(instruction)
                    if step is not None:
                        step(None if 0 in shape else tape.given("", (shape, program.values[instruction.input].dtype)))
            found |= noted.needs
    return found
