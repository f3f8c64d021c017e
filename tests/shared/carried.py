"""Where transports are tried: every backend over every transport that it can use, on several meshes; and a graph of collectives.

The graph has, for each dtype and each axis of the mesh, each kind of collective on uneven parts, alone between operators that only
move or reduce. So what arrives has to be exact, but for sums of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.layout import Interval, Split
from unitp.mesh import Mesh
from unitp.plans import Phase, PhasePlan, Plan
from unitp.plugins.discover import backends
from unitp.plugins.transports import native, usable

DTYPES = ("float32", "float64", "int64", "int32", "bool")
SMALL, LARGE = (7, 5), (601, 257)
"""Shapes. What is large takes other ways (TensorFlow's kernels, MPICH's algorithms) than what is small."""


class Way(NamedTuple):
    """A backend over a transport, on a mesh."""

    backend: str
    transport: str
    mesh: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def sums_in_order_of_arrival(self) -> bool:
        """KVStore adds what comes first: the last bit of a float32 sum of three may differ between runs."""
        return (self.backend, self.transport) == ("mxnet", "native") and max(Mesh.parse(self.mesh).sizes.values()) > 2


MESHES = ("tp=2", "tp=3", "dp=2,tp=2", "tp=4")
WAYS = [
    Way(name, "native" if transport == native(spec) else transport, mesh)
    for name, spec in sorted(backends().items())
    for transport in usable(spec)
    for mesh in MESHES
]
QUICK = {
    *(Way(name, "mpi", "tp=2") for name in ("torch", "tensorflow", "mxnet")),
    *(Way("numpy", "native", mesh) for mesh in MESHES[:3]),
    Way("torch", "native", "tp=2"),
}


def ways(
    chosen: set[Way] = QUICK, meshes: Sequence[str] = MESHES, but: Callable[[Way], bool] = lambda way: False
) -> pytest.MarkDecorator:
    """A test of a `way`; those that are not chosen are run where all tests are, `but` some."""
    return pytest.mark.parametrize(
        "way",
        [
            pytest.param(way, marks=() if way in chosen else (pytest.mark.full,), id=str(way))
            for way in WAYS
            if way.mesh in meshes and not but(way)
        ],
    )


def uneven(parts: int, size: int) -> tuple[Interval, ...]:
    """Intervals over `size` rows: one row, then the rest by halves; the last one may be empty."""
    edges, at = [0], 1
    for _ in range(parts - 1):
        edges.append(min(at, size))
        at += (size - at + 1) // 2 + 1
    return tuple(zip(edges, [*edges[1:], size], strict=True))


class Collected(NamedTuple):
    """The graph of all collectives on a mesh, its plan, and what its outputs are computed from: the input and the reduction.

    `each`: outputs that are put together of what each rank has of a value that all have, by the output with one rank's.
    """

    graph: Graph
    plan: Plan
    outputs: dict[str, tuple[str, str]]
    each: dict[str, str]


@lru_cache
def collectives(mesh_text: str) -> Collected:
    mesh, b = Mesh.parse(mesh_text), Builder("collectives")
    nodes: dict[str, dict[str, Split]] = {}
    outputs: dict[str, tuple[str, str]] = {}
    each: dict[str, str] = {}

    def made(op: str, x: str, name: str, split: dict[str, Split], **attrs: Any) -> str:
        nodes[name] = split
        return str(b.op(op, x, name=name, **attrs))

    for dtype, shape in _kinds():
        x = b.input(f"x_{dtype}_{shape[0]}", dtype, shape)
        for axis, size in mesh.axes:
            if size < 2:
                continue
            of, rows, columns = f"{x}_{axis}", *(Split((axis,), uneven(size, n)) for n in shape)
            by_rows = made("Identity", x, f"rows_{of}", {"d0": rows})
            by_columns = made("Identity", by_rows, f"columns_{of}", {"d1": columns})
            outputs[made("Identity", by_columns, f"moved_{of}", {})] = (x, "")
            if dtype == "bool":
                continue
            for op, how in (("ReduceSum", "sum"), ("ReduceMax", "max")):
                reduced = made(op, x, f"{how}_{of}", {"d0": rows}, axes=(0,), keepdims=1)
                whole = made("Identity", reduced, f"whole_{how}_{of}", {})
                outputs[whole] = (x, how)
                each[made("Identity", whole, f"each_{how}_{of}", {"d1": columns})] = whole
            again = made("ReduceSum", x, f"again_{of}", {"d0": rows}, axes=(0,), keepdims=1)
            scattered = made("Identity", again, f"scattered_{of}", {"d1": columns})
            outputs[made("Identity", scattered, f"gathered_{of}", {})] = (x, "sum")
    graph = b.graph(*outputs, *each)
    plan = Plan(graph.hash, mesh, {}, {}, (PhasePlan(Phase("main", {}), nodes),))
    return Collected(graph, plan, outputs, each)


def _kinds() -> Iterator[tuple[str, tuple[int, int]]]:
    for dtype in DTYPES:
        yield dtype, SMALL
    yield "float32", LARGE


def given(graph: Graph) -> dict[str, npt.NDArray[Any]]:
    """An array for each input."""
    rng = np.random.default_rng(5)
    found = {}
    for name, type_ in graph.inputs.items():
        shape = type_.sized({})
        if type_.dtype == "bool":
            found[name] = rng.random(shape) < 0.5
        elif type_.dtype.startswith("int"):
            found[name] = rng.integers(-(2**30), 2**30, shape).astype(type_.dtype)
        else:
            found[name] = rng.normal(size=shape).astype(type_.dtype)
    return found
