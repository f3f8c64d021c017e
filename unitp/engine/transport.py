"""What the collectives of all backends share: a count of their cost, and the case of a group with a single rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol

from unitp.engine.primitives import Collectives, Tensor


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
