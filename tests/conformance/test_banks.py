"""Banks of states on every backend: a program serves all of them, none sees another's rows, and one that is freed is gone."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unitp.engine.engine import Array, Engine
from unitp.graph.graph import Graph
from unitp.graph.weights import read
from unitp.plans import Phase, unsplit
from unitp.plugins.discover import backends
from unitp.program.lower import lower
from unitp.testing.models import tiny
from unitp.testing.operators import engine

SIZES = {"batch": 1, "seq": 1, "cache": 128, "live": 128, "take": 1, "candidates": 1}


@pytest.fixture(params=sorted(backends()))
def on(request: pytest.FixtureRequest) -> Engine:
    with warnings.catch_warnings(action="ignore"):  # of frameworks, while they are imported
        made = engine(request.param)
    for p in tiny().graph.parameters:
        made.load(p.name, read(p.source, [(0, n) for n in p.type.sized(SIZES)]))
    return made


def allocate(on: Engine, graph: Graph, *banks: int) -> None:
    for bank in banks:
        for state in graph.states:
            on.allocate(bank, state.input, state.type.sized(SIZES), "float32")


def step(on: Engine, token: int, past: int, bank: int) -> Array:
    """The logits after a further token."""
    given = {"input_ids": [[token]], "position_ids": [[past]], "write_indices": [past], "kv_length": [past + 1]}
    arrays: dict[str, Array] = {
        name: np.array(value, np.int64) for name, value in (given | {"logits_index": [[0]]}).items()
    }
    (logits,) = on.run("step", arrays, bank).values()
    return logits.copy()


def watched(state: Any) -> Callable[[], bool]:
    """Tells whether nobody but this has a state any more."""
    try:
        ref = weakref.ref(state)
    except TypeError:  # MXNet's arrays
        return lambda: sys.getrefcount(state) <= 2  # the closure's, and the argument's
    return lambda: ref() is None


def test_one_program_serves_all_banks_and_what_is_freed_is_gone(on: Engine) -> None:
    graph = tiny().graph
    allocate(on, graph, 1)
    on.compile("step", lower(graph, unsplit(graph, [Phase("main", {})]), "main", SIZES, ("logits",)))
    before = on.stats().functions
    rows = [[5, 9, 200], [5, 8, 200]]
    alone = [[step(on, token, past, 1) for past, token in enumerate(row)] for row in rows]
    allocate(on, graph, 2, 3)
    for past in range(3):
        for bank, row in zip((2, 3), range(2), strict=True):
            np.testing.assert_array_equal(step(on, rows[row][past], past, bank), alone[row][past])
    assert not np.array_equal(alone[0][2], alone[1][2]), "what was said before counts"
    assert on.stats().functions == before, "another bank is not a reason to trace"
    held = [watched(state) for state in on.states.of(1).values()]  # type: ignore[attr-defined]
    assert not any(gone() for gone in held)
    on.free(1)
    gc.collect()
    assert all(gone() for gone in held)
    np.testing.assert_array_equal(step(on, 200, 2, 3), alone[1][2])
    on.forget("step")
    for bank in (2, 3):
        on.free(bank)
