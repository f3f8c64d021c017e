"""Graphs for tests of places out of range: operators that take places, and the ways in which a place comes to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph

Array = npt.NDArray[Any]


class Taker(NamedTuple):
    """An operator that takes places: a graph of it by its operand of places [`shape`], and which numbers are legal."""

    make: Callable[[Builder, str], Any]
    shape: tuple[int, ...]
    low: int
    high: int


def _gather_nd(b: Builder, at: str) -> Any:
    return b.GatherND(b.input("x", "float32", (3, 5, 7)), b.Unsqueeze(at, axes=(2,)), batch_dims=1)


def _scatter(b: Builder, at: str) -> Any:
    past = b.state("past", "float32", (3, 5, 7, 4))
    b.keep(past, present := b.TensorScatter(past, b.input("x", "float32", (3, 5, 2, 4)), at, axis=2))
    return b.Slice(present, axes=(2,), starts=(0,), ends=(5,))


def _read_scatter(b: Builder, at: str) -> Any:
    """Scatter into a state that another operator reads too, so that it is not written in place."""
    past = b.state("past", "float32", (3, 5, 7, 4))
    b.keep(past, present := b.TensorScatter(past, b.input("x", "float32", (3, 5, 2, 4)), at, axis=2))
    return b.Add(past, present)


def _rotary(b: Builder, at: str) -> Any:
    tables = b.random("cos", (9, 3), seed=1), b.random("sin", (9, 3), seed=2)
    return b.RotaryEmbedding(b.input("x", "float32", (2, 5, 4, 6)), *tables, at)


def _attention(b: Builder, at: str) -> Any:
    q, k = b.input("q", "float32", (2, 6, 4, 6)), b.input("k", "float32", (2, 3, 5, 6))
    return b.Attention(q, k, k, "", "", "", at, is_causal=1)


TAKERS = {
    "Gather": Taker(lambda b, at: b.Gather(b.random("t", (13, 7), seed=1), at, axis=0), (3, 5), -13, 12),
    "Gather, dim 1": Taker(lambda b, at: b.Gather(b.input("x", "float32", (5, 7, 3)), at, axis=1), (4,), -7, 6),
    "GatherND": Taker(_gather_nd, (3, 2), -5, 4),
    "GatherElements": Taker(lambda b, at: b.GatherElements(b.input("x", "float32", (4, 7)), at, axis=1), (4, 9), -7, 6),
    "TensorScatter": Taker(_scatter, (3,), 0, 5),
    "TensorScatter, read": Taker(_read_scatter, (3,), 0, 5),
    "RotaryEmbedding": Taker(_rotary, (2, 4), 0, 8),
    "Attention": Taker(_attention, (2,), 1, 5),
}


def _moved(b: Builder, shape: tuple[int, ...]) -> str:
    """Return a place that is cut out of an input with illegal numbers next to it, transposed, joined and cast."""
    wide = b.input("at", "int64", (*shape[::-1], 3))
    at = b.Squeeze(b.Slice(wide, axes=(-1,), starts=(1,), ends=(2,)), axes=(len(shape),))
    at = b.Reshape(b.Transpose(at), shape=(1, *shape))
    return str(b.Squeeze(b.Concat(b.Identity(b.Cast(at, to="int32")), axis=0), axes=(0,)))


def _chosen(b: Builder, shape: tuple[int, ...]) -> str:
    """Choose elements of the input by numbers that are known only when the graph runs."""
    at = b.input("at", "int64", shape)
    return str(b.Where(b.Equal(at, at), at, b.Neg(at)))


WAYS: dict[str, Callable[[Builder, tuple[int, ...]], str]] = {
    "input": lambda b, shape: str(b.input("at", "int64", shape)),
    "moved": _moved,
    "computed": lambda b, shape: str(b.Neg(b.input("at", "int64", shape))),
    "chosen": _chosen,
}
"""The ways in which a place comes to the operator that takes it."""


def graph_of(taker: Taker, way: str) -> Graph:
    b = Builder("places")
    return b.graph(str(taker.make(b, WAYS[way](b, taker.shape))))


def filled(way: str, places: Array) -> Array:
    """Return the input `at` that leads to these places."""
    if way == "computed":
        return -places
    if way == "moved":
        return np.stack([np.full(places.T.shape, 10**6), places.T, np.full(places.T.shape, -(10**6))], -1)
    return places


def illegal(taker: Taker) -> list[int]:
    just, far = [taker.low - 1, taker.high + 1], [taker.low - 1000, 10**6, -(2**31) + 1]
    return [*just, *far, 2 * taker.low - 2, 2 * taker.high + 2]
