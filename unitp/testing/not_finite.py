"""Graphs with NaN or an infinity planted somewhere, and the operator that a checked run must find."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.testing.unsharded import numbers

Array = npt.NDArray[Any]


class Plant(NamedTuple):
    """A number that is planted, its place, the operator that must be found, and what the report says."""

    number: float
    into: str
    operator: str
    says: str


PLANTS = {
    "a weight": Plant(np.nan, "a weight/first", "MatMul", 'reads parameter "a weight/first", which has NaN at [1, 2]'),
    "a row": Plant(np.inf, "a row/table", "Gather", 'reads parameter "a row/table", which has inf at [1, 2]'),
    "an input": Plant(np.nan, "x", "MatMul", 'reads input "x", which has NaN at [1, 2]'),
    "an overflow": Plant(1e30, "an overflow/large", "Mul", '"mul_6" has inf at [1, 2]'),
    "a power": Plant(300.0, "a power/exponent", "Exp", '"exp_9" has inf at [1, 2]'),
    "a logarithm": Plant(0.0, "positive", "Log", '"log_12" has -inf at [1, 2]'),
    "a mask": Plant(-np.inf, "mask", "Softmax", '"softmax_15" has NaN at [1, 0]'),
}


def graph_of(name: str) -> Graph:
    """Return the graph in which `name` is planted. Its parameters are named after it, since an engine keeps what it derives from them."""
    b = Builder("planted")

    def weight(what: str, *shape: int) -> str:
        return str(b.random(f"{name}/{what}", shape, seed=1))

    h = b.Tanh(b.MatMul(b.input("x", "float32", (2, 6)), b.Transpose(weight("first", 8, 6), perm=(1, 0))))
    h = b.Add(h, b.Gather(weight("table", 5, 8), b.input("ids", "int64", (2,)), axis=0))
    large = b.Add(h, weight("large", 2, 8))
    h = b.Tanh(b.Mul(large, large))
    h = b.Tanh(b.Exp(b.Add(h, weight("exponent", 2, 8))))
    past = b.state("past", "float32", (2, 8))
    b.keep(past, new := b.Add(past, h))
    h = b.Add(b.Add(new, b.Log(b.input("positive", "float32", (2, 8)))), b.input("mask", "float32", (2, 8)))
    return b.graph(b.MatMul(b.Softmax(h), weight("last", 8, 4)))


def arrays_of(name: str) -> dict[str, Array]:
    """Return small numbers, with the plant `name` in one element or in a row of the mask; "" plants nothing."""
    arrays = {key: np.clip(array, -1, 1) for key, array in numbers(graph_of(name), 5).items()}
    arrays |= {"ids": np.array([0, 1]), "positive": np.ones((2, 8)), "past": np.zeros((2, 8))}
    arrays["mask"] = np.where(np.arange(16).reshape(2, 8) % 3 == 1, -np.inf, 0.0)
    if name in PLANTS:
        plant = PLANTS[name]
        arrays[plant.into][1, slice(None) if name == "a mask" else 2] = plant.number
    return {key: array.astype("float32") if array.dtype.kind == "f" else array for key, array in arrays.items()}
