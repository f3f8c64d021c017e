"""Real ranks at sizes that no phase has: prompts of one token and of odd numbers, batches of unlike lengths, and fewer rows
than ranks of what a plan splits by symbol. In float64, against NumPy on one rank.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from places import BACKENDS, sampled

from unitp.comparison.metrics import MEANING, relative_error
from unitp.comparison.oracle import one_rank
from unitp.cost import Machine
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plans import Phase, Plan
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT, tiny

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SIZES = {"cache": 512, "live": 512, "take": 1, "candidates": 1}
BATCH = (Phase("prefill", SIZES | {"batch": 4, "seq": 64}), Phase("decode", SIZES | {"batch": 4, "seq": 1}, 200.0))
PLANS = {
    "split over positions": ("tp=3", None, EAGER_TO_SPLIT),
    "split over the batch": ("tp=2", BATCH, Machine()),
    "weights replicated": ("tp=2", None, Machine()),
    "two axes": ("x=2,y=2", None, EAGER_TO_SPLIT),
}
CASES = [
    pytest.param(b, name, marks=() if b in backends_of else pytest.mark.full)
    for name, backends_of in {
        "split over positions": {"numpy", *(b for b, _ in sampled(["split over positions"]))},
        "split over the batch": set(BACKENDS),
        "weights replicated": set(),
        "two axes": set(),
    }.items()
    for b in BACKENDS
]
LOGITS = [[[5]], [[5, 9, 200]], [[7] * 17], [[4, 5], [6, 7], [1, 256]]]
PROMPTS = [[[5]], [[1], [2] * 5, [3] * 19], [[7] * 125]]
NEW = 5


@lru_cache
def model() -> Model:
    return tiny(max_context=128)


@lru_cache
def decided(name: str) -> Plan:
    mesh, phases, machine = PLANS[name]
    return plan_graph(Request(model().graph, Mesh.parse(mesh), phases or (), machine=machine))


def answers(session: Session) -> tuple[list[np.ndarray], list[list[list[int]]]]:
    """Logits of short inputs, each followed by what a call of one token adds; and tokens after several prompts."""
    logits, tokens = [], []
    for ids in LOGITS:
        logits.append(session.run(input_ids=np.array(ids))["logits"])
        logits.append(session.run(input_ids=np.array([[11]] * len(ids)), keep=True, last=True)["logits"])
    for prompts in PROMPTS:
        generation = session.generation(prompts, NEW)
        for _ in generation:
            pass
        tokens.append(generation.tokens)
    return logits, tokens


@lru_cache
def right() -> tuple[list[np.ndarray], list[list[list[int]]]]:
    with launch(model(), one_rank(model()), "numpy", dtype="float64") as session:
        return answers(session)


def test_these_plans_split_dims_by_symbol() -> None:
    for name in PLANS:
        splits = (s for p in decided(name).phases for factors in p.nodes.values() for s in factors.values())
        assert any(split.open for split in splits), name


@pytest.mark.parametrize("backend,name", CASES)
def test_short_odd_and_unlike_prompts(backend: str, name: str) -> None:
    with launch(model(), decided(name), backend, dtype="float64") as session:
        logits, tokens = answers(session)
    errors = [relative_error(a, b) for a, b in zip(logits, right()[0], strict=True)]
    assert max(errors) <= MEANING, errors
    assert tokens == right()[1]
