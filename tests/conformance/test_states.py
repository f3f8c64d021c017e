"""States of any shape and any rule of replacement mean the same on every backend, call after call."""

from __future__ import annotations

import numpy as np
import pytest

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import plan
from unitp.plugins.discover import backends
from unitp.runtime.launch import launch

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def delay_line(shape: tuple[int, ...]) -> Graph:
    """Gives the input of two calls ago: two states, one replaced by the other's old value."""
    b = Builder("delay")
    x = b.input("x", "float32", shape)
    old, new = b.state("old", "float32", shape), b.state("new", "float32", shape)
    out = b.Add(old, b.random("zero", shape, seed=0, scale=0.0), name="out")
    b.keep("old", b.Identity(new))
    b.keep("new", b.Identity(x))
    return b.graph(out)


@pytest.mark.parametrize("shape", [(3,), (2, 3)], ids=str)
@pytest.mark.parametrize("backend", sorted(backends()))
def test_a_delay_line_gives_what_was_put_in_two_calls_ago(backend: str, shape: tuple[int, ...]) -> None:
    graph = delay_line(shape)
    with launch(graph, plan(graph, Mesh()), backend) as session:
        for _ in range(2):
            session.reset()
            found = [session.run(x=np.full(shape, n), keep=True)["out"] for n in range(1, 6)]
            assert [np.unique(a).tolist() for a in found] == [[0.0], [0.0], [1.0], [2.0], [3.0]]
