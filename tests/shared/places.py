"""Where conformance is tried: every backend on one and two ranks, NumPy on every mesh, and each wider mesh on one framework of a
seeded sample, in float64. On two cores the ranks of wider meshes take turns, so the rest is marked `full`, for `make test-all`.

The fixtures `small` and `large` (tests/conformance/conftest.py) make sessions at these places, which many tests share.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import pytest

import unitp
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plans import Plan
from unitp.plugins.discover import backends
from unitp.testing.models import EAGER_TO_SPLIT, tiny

BACKENDS = sorted(backends())
NARROW, WIDE = ("tp=1", "tp=2"), ("tp=3", "tp=4", "dp=2,tp=2")
DTYPES = ("float32", "float64")
CONTEXT = 1600
"""Of the small model's caches: room for three chunks of a prompt."""

LARGE_CONTEXT = 2048


class Place(NamedTuple):
    """Where the small model runs."""

    backend: str
    mesh: str
    dtype: str

    def __str__(self) -> str:
        return "-".join(self)


PLACES = [Place(b, m, dtype) for b in BACKENDS for m in (*NARROW, *WIDE) for dtype in DTYPES]


def sampled(cases: Sequence[str], seed: int = 7) -> set[tuple[str, str]]:
    """(backend, case): of each case one backend besides NumPy, so that all have a turn where there are cases enough."""
    others = [name for name in BACKENDS if name != "numpy"]
    random.Random(seed).shuffle(others)
    return {(others[n % len(others)], case) for n, case in enumerate(cases) if others}


def full_unless(chosen: set[tuple[str, str]], backend: str, case: str) -> tuple[pytest.MarkDecorator, ...]:
    """The marks of a case that each backend is only tried on where all tests are run."""
    return () if backend == "numpy" or (backend, case) in chosen else (pytest.mark.full,)


def at(
    *, backend: Sequence[str] = BACKENDS, mesh: Sequence[str] = (*NARROW, *WIDE), dtype: Sequence[str] = ("float32",)
) -> pytest.MarkDecorator:
    """A test of `small` at these places."""
    chosen = sampled([f"{wide} float64" for wide in WIDE])
    chosen |= {(name, f"{narrow} {precision}") for name in BACKENDS for narrow in NARROW for precision in DTYPES}
    return pytest.mark.parametrize(
        "small",
        [
            pytest.param(place, marks=full_unless(chosen, place.backend, f"{place.mesh} {place.dtype}"), id=str(place))
            for place in PLACES
            if place.backend in backend and place.mesh in mesh and place.dtype in dtype
        ],
        indirect=True,
    )


on_every_backend = pytest.mark.parametrize("large", BACKENDS, indirect=True)
"""A test of `large`."""


@lru_cache
def small_model() -> Model:
    """Made for contexts longer than a chunk of a prompt."""
    return tiny(max_context=2048)


@lru_cache
def small_plan(mesh: str) -> Plan:
    return plan_graph(Request(small_model().graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))


@lru_cache
def smollm2() -> Model:
    return unitp.load("smollm2-135m")


@lru_cache
def smollm2_plan(mesh: str) -> Plan:
    return unitp.plan(smollm2(), mesh=Mesh.parse(mesh))
