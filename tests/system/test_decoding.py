"""Ranks that decide on tokens by themselves decide alike, also where their numbers differ."""

from __future__ import annotations

import os

import pytest
from drivers import FAKES
from unitp_unlike import SPEC

from unitp.engine.sampling import Sampling
from unitp.errors import RankError
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Plan
from unitp.plugins.discover import backends
from unitp.plugins.spec import BackendSpec
from unitp.program.instructions import Program
from unitp.session import executor
from unitp.session.launch import launch
from unitp.testing.models import tiny

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

GRAPH = tiny().graph
PROMPTS = [[1, 2, 3], [4, 5]]
SAMPLINGS = (Sampling(), Sampling(temperature=1.0, top_k=20, top_p=0.9, seed=7))


@pytest.fixture(autouse=True)
def ranks_find_their_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")])))


def whole(mesh: Mesh) -> Plan:
    """Every rank does everything."""
    alone = plan(Request(GRAPH, Mesh(tp=1)))
    return Plan(alone.graph, mesh, alone.parameters, alone.states, alone.phases)


def said(mesh: Mesh, backend: BackendSpec = SPEC) -> list[list[list[int]]]:
    with launch(GRAPH, whole(mesh), backend, dtype="float64") as session:
        found = []
        for sampling in SAMPLINGS:
            generation = session.generation(PROMPTS, 30, sampling=sampling)
            assert len(list(generation)) == 30
            found.append(generation.tokens)
        return found


def test_the_first_rank_is_the_one_that_counts() -> None:
    assert said(Mesh(tp=3)) == said(Mesh(tp=1))


@pytest.mark.parametrize("backend", sorted(backends()))
def test_every_backend_broadcasts_candidates(backend: str) -> None:
    assert said(Mesh(tp=2), backends()[backend]) == said(Mesh(tp=1))


def test_left_to_themselves_they_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_is(program: Program) -> Program:
        return program

    monkeypatch.setattr(executor, "alike", as_it_is)
    with launch(GRAPH, whole(Mesh(tp=2)), SPEC) as session:
        with pytest.raises(RankError, match="rank 1 has decided on other tokens than rank 0"):
            list(session.generate(PROMPTS[0], 30))
        assert session.probe() == [2.0, 2.0]
