"""States of any shape and any rule of replacement mean the same on every backend, call after call."""

from __future__ import annotations

import numpy as np
import pytest

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backends
from unitp.session.launch import launch

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


SHAPES = {"row": (3,), "table": (2, 3)}


def delay_lines() -> Graph:
    """Gives the inputs of two calls ago: of each shape two states, one replaced by the other's old value."""
    b = Builder("delay")
    outs = []
    for name, shape in SHAPES.items():
        x = b.input(name, "float32", shape)
        old, new = b.state(f"{name} old", "float32", shape), b.state(f"{name} new", "float32", shape)
        outs.append(b.Add(old, b.random(f"{name} zero", shape, seed=0, scale=0.0), name=f"{name} out"))
        b.keep(f"{name} old", b.Identity(new))
        b.keep(f"{name} new", b.Identity(x))
    return b.graph(*outs)


@pytest.mark.parametrize("backend", sorted(backends()))
def test_a_delay_line_gives_what_was_put_in_two_calls_ago(backend: str) -> None:
    graph = delay_lines()
    with launch(graph, plan(Request(graph, Mesh())), backend) as session:
        for _ in range(2):
            session.reset()
            for n, wanted in enumerate([0, 0, 1, 2, 3], 1):
                given = {name: np.full(shape, n, np.float32) for name, shape in SHAPES.items()}
                found = session.run(given, keep=True)
                for name, shape in SHAPES.items():
                    assert np.array_equal(found[f"{name} out"], np.full(shape, wanted))
