"""Wherever a session is started, its ranks start, compute the same, and execute nothing that lies around."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import plan
from unitp.runtime.launch import launch
from unitp.testing.models import EAGER_TO_SPLIT
from unitp.testing.surroundings import Surroundings

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

IDS = [[5, 17, 3, 88, 41]]


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """This process, from here on, in surroundings that are all wrong."""
    made = Surroundings(tmp_path)
    monkeypatch.chdir(made.folder)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(scope="module")
def logits(tiny: Graph, zoo_of_module: Any) -> Any:
    """What is right, computed on one rank in good surroundings."""
    with launch(tiny, plan(tiny, Mesh()), dtype="float64") as session:
        return session.run(input_ids=IDS)["logits"]


@pytest.mark.parametrize("name", ["numpy", "torch", "tensorflow", "mxnet"])
def test_every_backend_starts_in_surroundings_that_are_all_wrong(
    name: str, tiny: Graph, logits: Any, surroundings: Surroundings, zoo: Any
) -> None:
    decided = plan(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT)
    with launch(tiny, decided, name, dtype="float64") as session:
        np.testing.assert_allclose(session.run(input_ids=IDS)["logits"], logits, rtol=0, atol=1e-5)
        for rank in range(2):
            pid = zoo.find(f"rank {rank}").pid
            assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
            assert os.readlink(f"/proc/{pid}/cwd") != str(surroundings.folder)
    assert surroundings.executed == []
