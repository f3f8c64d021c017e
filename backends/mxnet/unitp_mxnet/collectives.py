"""The collectives over MXNet's KVStore `dist_sync`, whose servers add what the workers push to a key.

Every mesh axis has a server of its own, which answers once as many workers have pushed as a group of the axis has
members (`unitp_mxnet.cluster` starts it so). Key k lies on server `9973 k mod servers`. A key belongs to one group, one
size and one dtype for ever; all ranks make keys together: `prepare` makes those of a program, for all groups.

    all_reduce      push and pull the sum              all_gather   the sum of parts, each in its place among zeros
    max             all_gather, then the maximum       all_to_all   all_gather of all parts; each takes its column
    reduce_scatter  all_reduce; each takes its part

Gathered data is exact (x + 0 = x; -0.0 arrives as 0.0). Integers and bools travel as float64; servers know no integers.
The sum of three or more is taken in the order of arrival: its last bit may differ between runs, never between ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from math import prod
from typing import NamedTuple

import mxnet as mx
import numpy as np

from unitp.errors import BackendError, ProgramError
from unitp.mesh import Mesh
from unitp.program.exchange import Exchange
from unitp.program.instructions import Local, Mask, Program, Slice
from unitp.program.rank import local_shape
from unitp.program.transport import Tally
from unitp_mxnet import primitives as p
from unitp_mxnet.cluster import server_axes
from unitp_mxnet.operators import Tensor, host, recording
from unitp_mxnet.segments import Recording

PRIME = 9973
"""What MXNet multiplies a key with to find its server."""


class Need(NamedTuple):
    """What a key is for: the group's axis and first rank, how many numbers, and their dtype on the wire."""

    axis: str
    first: int
    size: int
    dtype: str


class _Recipes(ABC):
    """`unitp.program.primitives.Collectives` in terms of `add`, the sum of equal flat arrays over a group."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        self.groups = {axis: mesh.group_of(rank, axis) for axis, _ in mesh.axes}
        self.places = {axis: group.index(rank) for axis, group in self.groups.items()}

    @abstractmethod
    def add(self, x: Tensor, need: Need, given: int) -> Tensor:
        """The sum over the group, in an array of its own. `given`: how many of its bytes the caller gave."""

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        if reduction == "max":
            return reduce(p.maximum, self.all_gather(x, axis))
        return self._sum(x, axis, 1)

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        count, place = len(self.groups[axis]), self.places[axis]
        zeros = p.full((1, *x.shape), 0, p.dtype(x))
        part = p.reshape(x, (1, *x.shape))
        rows = self._sum(p.concat([part if i == place else zeros for i in range(count)], 0), axis, count)
        return [_row(rows, i) for i in range(count)]

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        return _row(self._sum(_stacked(parts), axis, 1), self.places[axis])

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        return [_row(theirs, self.places[axis]) for theirs in self.all_gather(_stacked(parts), axis)]

    def _sum(self, x: Tensor, axis: str, copies: int) -> Tensor:
        """The sum of `x` over the group; one in `copies` of it is data."""
        dtype, shape = p.dtype(x), x.shape
        wire = dtype if dtype.startswith("float") else "float64"
        need = Need(axis, self.groups[axis][0], prod(shape), wire)
        flat = p.reshape(p.cast(x, wire), (need.size,))
        total = self.add(flat, need, need.size * np.dtype(dtype).itemsize // copies)
        return p.cast(p.reshape(total, shape), dtype)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return p.concat([p.reshape(part, (1, *part.shape)) for part in parts], 0)


def _row(x: Tensor, place: int) -> Tensor:
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
        self.make(Need(axis, group[0], 1, "float32") for axis in self._axes for group in mesh.groups(axis))

    def prepare(self, program: Program) -> None:
        """Make the keys of a program. All ranks call this with the same programs, in the same order."""
        self.make(needs(program))

    def make(self, needs: Iterable[Need]) -> None:
        for need in sorted(set(needs) - set(self._keys)):
            self._keys[need] = self._free_key(need.axis)
            self._kv.init(self._keys[need], mx.nd.zeros((need.size,), dtype=need.dtype))

    def _free_key(self, axis: str) -> int:
        """A new number that lies on the server of `axis`."""
        key = self._next[axis]
        while PRIME * key % len(self._axes) != self._axes.index(axis):
            key += 1
        self._next[axis] = key + 1
        return key

    def add(self, x: Tensor, need: Need, given: int) -> Tensor:
        key = self._keys.get(need)
        if key is None:
            raise ProgramError(f"no key was made for {need.size} numbers in {need.dtype} over {need.axis}")
        return host(partial(self._add, key, given), x, type=(x.shape, need.dtype), ordered=True)

    def _add(self, key: int, given: int, x: Tensor) -> Tensor:
        out = x.copy()
        out.wait_to_read()  # what leads to x is not the collective's time
        with self.tally.call(given):
            self._kv.pushpull(key, out, out=out)
            out.wait_to_read()
        return out

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
