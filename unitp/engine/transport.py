"""What all backends' collectives share: they count what they cost, and a rank that is alone needs no transport."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol

from unitp.engine.primitives import Collectives, Tensor


class Tally:
    """What collectives cost so far: seconds, calls, bytes given to them."""

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
    """A backend's collectives, which count what they do, and can be left."""

    tally: Tally

    def close(self) -> None: ...


class Alone:
    """The collectives of a rank that is the only one of its group."""

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
        """Nothing is joined, nothing is left."""
