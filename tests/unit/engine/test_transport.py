"""What lies in order in memory is neither stacked nor joined: collectives get it, and give it, as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from unitp.engine.transport import Buffered, Gathered, Memory, adjacent

X = np.arange(48.0, dtype=np.float32).reshape(1, 6, 8)


def test_parts_in_order_are_one_array_in_their_own_memory() -> None:
    together = adjacent([X[:, :2], X[:, 2:4], X[:, 4:]])
    assert together is not None
    assert np.shares_memory(together, X)
    assert together.tolist() == X.reshape(3, 1, 2, 8).tolist()
    scalars = adjacent([X[0, 0, 0:1].reshape(()), X[0, 0, 1:2].reshape(())])
    assert scalars is not None
    assert scalars.tolist() == [0, 1]


@pytest.mark.parametrize(
    "parts",
    [
        [X[:, 2:4], X[:, :2]],
        [X[:, :2], X[:, 4:]],
        [X[:, :2], X[:, 2:5]],
        [X[:, :, :4], X[:, :, 4:]],
        [X[:, :2], X[:, 2:4].copy()],
    ],
    ids=["backwards", "a gap", "unequal", "not contiguous", "elsewhere"],
)
def test_other_parts_are_stacked(parts: list[Memory]) -> None:
    assert adjacent(parts) is None


class Echo:
    """A transport of two ranks of which the other gives and wants the same as this one; it keeps what it was given."""

    def __init__(self) -> None:
        self.sizes: Mapping[str, int] = {"tp": 2}
        self.given: list[Memory] = []

    def all_reduce(self, x: Memory, out: Memory, axis: str, reduction: str) -> None:
        out[...] = 2 * x

    def all_gather(self, x: Memory, out: Memory, axis: str) -> None:
        out[...] = x

    def reduce_scatter(self, parts: Memory, out: Memory, axis: str) -> None:
        self.given.append(parts)
        out[...] = 2 * parts[0]

    def all_to_all(self, parts: Memory, out: Memory, axis: str) -> None:
        self.given.append(parts)
        out[...] = parts

    def close(self) -> None:
        """Nothing is open."""


def test_what_is_scattered_or_swapped_is_not_copied_where_it_lies_in_order() -> None:
    echo = Echo()
    carried = Buffered(echo)
    assert carried.reduce_scatter([X[:, :3], X[:, 3:]], "tp").tolist() == (2 * X[:, :3]).tolist()
    carried.all_to_all([X[:, :3], X[:, 3:]], "tp")
    carried.reduce_scatter([X[:, :, :4], X[:, :, 4:]], "tp")
    assert [np.shares_memory(given, X) for given in echo.given] == [True, True, False]
    assert [given.shape for given in echo.given] == [(2, 1, 3, 8), (2, 1, 3, 8), (2, 1, 6, 4)]


def test_what_is_gathered_is_one_tensor() -> None:
    found = Buffered(Echo()).all_gather(X, "tp")
    assert isinstance(found, Gathered)
    assert found.whole.shape == (2, 1, 6, 8)
    assert all(np.shares_memory(part, found.whole) for part in found)
