"""Weights of 16 bits on every backend that holds them: agreement with the oracle of the same rounded weights, and half the memory."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from places import CONTEXT, small_model, smollm2

import unitp
from unitp.certificate import CertifiedPlan
from unitp.comparison.compare import compare
from unitp.comparison.metrics import relative_error
from unitp.errors import InputError, ModelError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.source import FileSource
from unitp.graph.stored import as_planned
from unitp.mesh import Mesh
from unitp.plugins.discover import backends
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.session.launch import launch
from unitp.testing.models import EAGER_TO_SPLIT

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ABLE = [(name, dtype) for name, spec in sorted(backends().items()) for dtype in spec.weights]
PROMPTS = [[7, 250, 3, 99, 41], [11, 8, 200, 1, 76]]


@lru_cache
def planned(mesh: str, weights: str) -> CertifiedPlan:
    return unitp.plan(small_model(), Mesh.parse(mesh), machine=EAGER_TO_SPLIT, weights=weights)


@pytest.mark.parametrize("mesh, dtype", [*product(["tp=1", "tp=2", "tp=3"], ["float32", "float64"])])
@pytest.mark.parametrize("backend, weights", ABLE)
def test_logits_and_tokens_agree(backend: str, weights: str, mesh: str, dtype: str) -> None:
    plan = planned(mesh, weights)
    found = compare(small_model(), plan, [backend], prompt_ids=PROMPTS, dtype=dtype, context=CONTEXT, max_new_tokens=16)
    assert found.agree, str(found)
    assert found.backends[backend].tokens_equal


@pytest.mark.parametrize("backend, weights", ABLE)
def test_rounding_is_seen_and_is_as_large_as_it_should_be(backend: str, weights: str) -> None:
    """Otherwise the weights would not be stored in 16 bits at all."""
    logits = []
    for kind in ("float32", weights):
        with launch(small_model(), planned("tp=1", kind), backend, context=CONTEXT) as session:
            logits.append(session.run(input_ids=np.array(PROMPTS))["logits"])
    bits = {"bfloat16": 8, "float16": 11}[weights]
    assert 2.0 ** -(bits + 3) < relative_error(logits[1], logits[0]) < 2.0 ** -(bits - 3)


@pytest.mark.parametrize("backend", sorted({name for name, spec in backends().items() if not spec.weights}))
def test_a_backend_that_cannot_is_refused_before_anything_starts(backend: str) -> None:
    plan = planned("tp=1", "bfloat16")
    with pytest.raises(InputError, match=f"backend {backend} does not hold weights in bfloat16"):
        launch(small_model(), plan, backend)


@pytest.mark.parametrize("mesh", ["tp=1", "tp=2"])
def test_memory_is_planned_by_what_is_stored(mesh: str) -> None:
    """SmolLM2 without caches: norms and angles are all that stays in float32."""
    wide, narrow = (unitp.plan(smollm2(), Mesh.parse(mesh), weights=weights) for weights in ("float32", "bfloat16"))
    sizes = {"batch": 1, "seq": 1, "cache": 64, "live": 64, "take": 1, "candidates": 1}
    graphs = [as_planned(smollm2().graph, plan.graph) for plan in (wide, narrow)]
    one, other = (
        peak(lower(graph, plan, "decode", sizes), 0).parameters
        for graph, plan in zip(graphs, (wide, narrow), strict=True)
    )
    assert 0.5 <= other / one < 0.51


@pytest.mark.parametrize("backend, weights", ABLE)
def test_memory_is_what_is_stored(tmp_path: Path, backend: str, weights: str) -> None:
    """Of 512 MiB of float32 weights, a rank holds half."""
    with open(tmp_path / "zeros", "wb") as file:
        file.truncate(64 << 20)
    graph = large(FileSource(str(tmp_path / "zeros"), 0, "F32", (4096, 4096)))
    plan = unitp.plan(graph, weights=weights)
    with launch(graph, plan, backend) as session:
        session.run(x=np.ones((1, 4096), np.float32))
        (memory,) = session.memory()
    assert (memory.now - memory.idle) / 2**20 < 256 * 1.25


def large(source: FileSource) -> Graph:
    b = Builder("large")
    x = b.input("x", "float32", ("batch", 4096))
    for number in range(8):
        x = b.MatMul(x, b.Transpose(b.parameter(f"w{number}", (4096, 4096), source), perm=(1, 0)))
    return b.graph(x)


def test_a_weight_that_does_not_fit_into_float16_is_told() -> None:
    b = Builder("steep")
    graph = b.graph(b.MatMul(b.input("x", "float32", (1, 8)), b.random("w", (8, 8), seed=1, scale=1e6)))
    plan = unitp.plan(graph, weights="float16")
    with pytest.raises(ModelError, match="cannot be stored in float16, which ends at 65504"):
        launch(graph, plan, "numpy")


def test_a_session_follows_its_plan() -> None:
    with launch(small_model(), planned("tp=2", "bfloat16"), "numpy", context=CONTEXT) as session:
        kinds = {p.type.dtype for p in session.graph.parameters}
    assert kinds == {"float32", "bfloat16"}
