"""What the collectives of all backends share: a count of their cost, the case of a group with a single rank, and how a
transport that knows arrays only carries a framework's tensors.

A transport (`Buffers`) works on NumPy arrays. `Carried` gives it a framework's tensors by two functions: `view`, the
array that shares a tensor's memory, and `room`, a new tensor to receive into. So nothing is copied that a framework does
not want to be copied. Where several parts come or go, they are one tensor [members, ...]; `Buffered` splits it for a
framework whose tensors are indexed as NumPy's are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from unitp.engine.primitives import Collectives, Tensor

Memory = npt.NDArray[Any]
"""An array, contiguous in C's order, whose memory a transport reads or writes."""


class Tally:
    """The cost of all collectives so far: seconds, calls, and bytes passed to them."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.bytes = 0.0, 0, 0

    @contextmanager
    def call(self, size: int) -> Iterator[None]:
        """Count one call that is given `size` bytes: `with tally.call(x.nbytes): ...`."""
        start = perf_counter()
        yield
        self.seconds += perf_counter() - start
        self.calls += 1
        self.bytes += size


class CountedCollectives(Collectives, Protocol):
    """A backend's collectives, with a count of their cost and a way to close them."""

    tally: Tally

    def close(self) -> None: ...


class Gathered(list[Tensor]):
    """What a collective gathered: the rows of one tensor, `whole` [members, ...], which lies in order in memory."""

    def __init__(self, whole: Tensor) -> None:
        super().__init__(whole)
        self.whole = whole


class Alone:
    """The collectives of a rank that is alone in its group: each returns what it is given."""

    def __init__(self) -> None:
        self.tally = Tally()

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        return x

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        return [x]

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        return parts[0]

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        return list(parts)

    def close(self) -> None:
        """Do nothing: there is no connection to close."""


class Buffers(Protocol):
    """A transport, joined: collectives on arrays among the group of this rank along one mesh axis.

    All members pass equal shapes and dtypes. `x`, `parts` and `out` are contiguous and do not overlap. In a bool array, a
    sum or a maximum is whether any is true. Two runs with equal arrays give equal bits, on all members.
    """

    sizes: Mapping[str, int]
    """How many members the groups of each axis have."""

    def all_reduce(self, x: Memory, out: Memory, axis: str, reduction: str) -> None:
        """Write the elementwise "sum" or "max" (`reduction`) over the group into `out`, of the shape of `x`."""

    def all_gather(self, x: Memory, out: Memory, axis: str) -> None:
        """Write the arrays of all members into `out` [members, ...], in the order of the group."""

    def reduce_scatter(self, parts: Memory, out: Memory, axis: str) -> None:
        """Write the sum over the group of `parts` [members, ...] at this rank's place into `out`."""

    def all_to_all(self, parts: Memory, out: Memory, axis: str) -> None:
        """Part i of `parts` [members, ...] goes to member i; write what the members send to this rank into `out`, of that shape."""

    def close(self) -> None:
        """Leave the group of ranks."""


class Carried:
    """The collectives of a transport on a framework's tensors. `view` makes a tensor contiguous if it is not."""

    def __init__(
        self,
        buffers: Buffers,
        view: Callable[[Tensor], Memory],
        room: Callable[[tuple[int, ...], Any], Tensor],
    ) -> None:
        """`view(x)` is the array in the memory of `x`; `room(shape, dtype)` is a new tensor, `dtype` as arrays have it."""
        self.tally, self.sizes, self._view, self._room = Tally(), buffers.sizes, view, room
        self._buffers = buffers

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        """The sum or maximum over the group, in a new tensor."""
        given = self._view(x)
        made = self._room(given.shape, given.dtype)
        self.reduce_into(given, self._view(made), axis, reduction)
        return made

    def reduce_into(self, x: Memory, out: Memory, axis: str, reduction: str) -> None:
        """`all_reduce` from one array into another."""
        with self.tally.call(x.nbytes):
            self._buffers.all_reduce(x, out, axis, reduction)

    def all_gather(self, x: Tensor, axis: str) -> Tensor:
        """The tensors of all members, as one [members, ...]."""
        given = self._view(x)
        made = self._room((self.sizes[axis], *given.shape), given.dtype)
        with self.tally.call(given.nbytes):
            self._buffers.all_gather(given, self._view(made), axis)
        return made

    def reduce_scatter(self, parts: Tensor, axis: str) -> Tensor:
        """The sum over the group of the parts at this rank's place, of `parts` [members, ...]."""
        return self.scatter(self._view(parts), axis)

    def scatter(self, given: Memory, axis: str) -> Tensor:
        """`reduce_scatter` from an array."""
        made = self._room(given.shape[1:], given.dtype)
        with self.tally.call(given.nbytes):
            self._buffers.reduce_scatter(given, self._view(made), axis)
        return made

    def all_to_all(self, parts: Tensor, axis: str) -> Tensor:
        """The parts that the members send to this rank, as one tensor of the shape of `parts` [members, ...]."""
        return self.swap(self._view(parts), axis)

    def swap(self, given: Memory, axis: str) -> Tensor:
        """`all_to_all` from an array."""
        made = self._room(given.shape, given.dtype)
        with self.tally.call(given.nbytes):
            self._buffers.all_to_all(given, self._view(made), axis)
        return made

    def stacked(self, parts: Sequence[Tensor]) -> Memory:
        """The parts behind one another in memory: as they are if they lie so, else copied, by index, into a new tensor."""
        views = [self._view(part) for part in parts]
        if (together := adjacent(views)) is not None:
            return together
        made = self._room((len(parts), *views[0].shape), views[0].dtype)
        for place, part in enumerate(parts):
            made[place] = part
        return self._view(made)

    def close(self) -> None:
        self._buffers.close()


def contiguous(x: Memory) -> Memory:
    """An array in C's order, which is a copy only where it has to be. (`numpy.ascontiguousarray` gives a scalar a dim.)"""
    return np.asarray(x, order="C")


def adjacent(parts: Sequence[Memory]) -> Memory | None:
    """The parts as one array [parts, ...] in their own memory, if they lie behind one another there in C's order; else None.

    Whoever uses it keeps the parts alive.
    """
    first, starts = parts[0], [part.__array_interface__["data"][0] for part in parts]
    for place, part in enumerate(parts):
        if (
            not part.flags.c_contiguous
            or part.shape != first.shape
            or starts[place] != starts[0] + place * first.nbytes
        ):
            return None
    return as_strided(first, (len(parts), *first.shape), (first.nbytes, *first.strides))


class Buffered:
    """`CountedCollectives` over a transport, for a framework whose tensors are indexed and assigned to as NumPy's are."""

    def __init__(
        self,
        buffers: Buffers,
        view: Callable[[Tensor], Memory] = contiguous,
        room: Callable[[tuple[int, ...], Any], Tensor] = np.empty,
    ) -> None:
        """The defaults are for NumPy; see `Carried`."""
        self._carried = Carried(buffers, view, room)
        self.tally, self.reduce_into = self._carried.tally, self._carried.reduce_into

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        return self._carried.all_reduce(x, axis, reduction)

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        return Gathered(self._carried.all_gather(x, axis))

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        return self._carried.scatter(self._carried.stacked(parts), axis)

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        return list(self._carried.swap(self._carried.stacked(parts), axis))

    def close(self) -> None:
        self._carried.close()
