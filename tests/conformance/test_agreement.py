"""Every backend agrees with the oracle: logits, tokens, float64; even and uneven widths, sub-groups, long prompts.

SmolLM2 at tp=2 and a generated model of its proportions at more widths (see tests/shared/places.py); `full`: both at all widths.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from places import (
    BACKENDS,
    CONTEXT,
    at,
    full_unless,
    on_every_backend,
    sampled,
    small_model,
    small_plan,
    smollm2,
    smollm2_plan,
)

from unitp.comparison.metrics import MEANING, bound, relative_error
from unitp.comparison.oracle import Oracle, of_prompts, one_rank
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plans import Plan
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT

REFERENCE = Path(__file__).parent / "smollm2.npz"
PROMPTS = [[7, 250, 3, 99, 41], [11, 8, 200, 1, 76]]

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@lru_cache
def small_oracle() -> Oracle:
    return of_prompts(small_model(), PROMPTS, 24, CONTEXT)


def agrees(session: Session) -> None:
    """Logits within the bound of the session's dtype, and all greedy tokens."""
    oracle = small_oracle()
    logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
    generation = session.generation(PROMPTS, 24)
    for _ in generation:
        pass
    error = relative_error(logits, oracle.outputs["logits"])
    assert error <= bound(session.dtype, oracle.errors["logits"]), f"{session.dtype}: {error}"
    assert generation.tokens == oracle.tokens


def test_the_small_model_is_really_split() -> None:
    splits = {str(layout) for layout in small_plan("tp=4").parameters.values()}
    assert any("tp[" in s for s in splits)
    assert any("tp[" in str(layout) for layout in small_plan("tp=2").states.values())


@at(dtype=("float32", "float64"))
def test_a_small_model_agrees_at_every_width(small: Session) -> None:
    agrees(small)


@lru_cache
def unlike_plan() -> Plan:
    """For a fast device, one half as fast, and one too slow to be given a head."""
    fast = EAGER_TO_SPLIT.device(0)
    classes = {
        name: msgspec.structs.replace(
            fast, flops_per_s={"float32": fast.flops("float32") / by}, memory_bytes_per_s=fast.memory_bytes_per_s / by
        )
        for name, by in (("fast", 1), ("half", 2), ("snail", 40))
    }
    machine = msgspec.structs.replace(EAGER_TO_SPLIT, devices=classes, ranks=("fast", "half", "snail"))
    return plan_graph(Request(small_model().graph, Mesh(tp=3), machine=machine))


def test_bounds_follow_the_speed_of_heterogeneous_devices():
    caches = {str(layout) for layout in unlike_plan().states.values()}
    assert caches == {"-,tp[0:2 2:3 3:3],-,-"}


@pytest.mark.parametrize(
    "backend", [pytest.param(b, marks=full_unless(sampled(["unlike"]), b, "unlike")) for b in BACKENDS]
)
def test_a_small_model_agrees_on_heterogeneous_devices(backend: str) -> None:
    """Unequal parts, and none at all, of heads, columns, vocabulary and caches."""
    with launch(small_model(), unlike_plan(), backend, dtype="float64") as session:
        agrees(session)


@lru_cache
def small_long() -> tuple[list[list[int]], np.ndarray]:
    """A prompt of three chunks, and the logits of its last token."""
    ids = [[(7 * i * i + 3) % 257 for i in range(1500)]]
    with launch(small_model(), one_rank(small_model()), "numpy", dtype="float64", context=CONTEXT) as session:
        return ids, session.run(input_ids=np.array(ids), last=True)["logits"]


@at(mesh=["tp=2"])
def test_a_long_prompt_in_chunks(small: Session) -> None:
    """Past the chunk of 512, with caches that are read further at every call."""
    ids, right = small_long()
    found = small.run(input_ids=np.array(ids), last=True)["logits"]
    assert relative_error(found, right) <= 1e-5


def reference_agrees(session: Session) -> None:
    """Against llama.cpp in float32: last logits within 1e-4, all greedy tokens."""
    with np.load(REFERENCE, allow_pickle=False) as found:
        reference = dict(found)
    copies = session.plan.mesh.sizes.get("dp", 1)
    for name in ("capital", "code"):
        prompts = [reference[f"{name}.prompt_ids"].tolist()] * copies
        greedy = reference[f"{name}.greedy_ids"].tolist()
        logits = session.run(input_ids=np.array(prompts), last=True)["logits"][:, -1]
        assert np.abs(logits - reference[f"{name}.last_logits"]).max() <= 1e-4
        generation = session.generation(prompts, len(greedy))
        for _ in generation:
            pass
        assert generation.tokens == [greedy] * copies


@on_every_backend
def test_smollm2_on_two_ranks_is_what_llama_cpp_says(large: Session) -> None:
    reference_agrees(large)


@pytest.mark.full
@pytest.mark.parametrize("mesh", ["tp=1", "tp=3", "tp=4", "dp=2,tp=2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_at_every_width_is_what_llama_cpp_says(backend: str, mesh: str) -> None:
    with launch(smollm2(), smollm2_plan(mesh), backend, context=512) as session:
        reference_agrees(session)


@lru_cache
def smollm2_oracle() -> Oracle:
    return of_prompts(smollm2(), [[504, 3575, 282, 4649, 314]], 8, 512)


@pytest.mark.full
@pytest.mark.parametrize("mesh", ["tp=1", "tp=2", "tp=3", "tp=4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_means_the_same_in_float64(backend: str, mesh: str) -> None:
    oracle = smollm2_oracle()
    with launch(smollm2(), smollm2_plan(mesh), backend, dtype="float64", context=512) as session:
        logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
    assert relative_error(logits, oracle.outputs["logits"]) <= MEANING


@lru_cache
def smollm2_long() -> tuple[list[list[int]], np.ndarray]:
    ids = [[(7 * i * i + 3) % 49152 for i in range(1500)]]
    with launch(smollm2(), one_rank(smollm2()), "numpy", dtype="float64", context=1600) as session:
        return ids, session.run(input_ids=np.array(ids), last=True)["logits"]


@pytest.mark.full
@on_every_backend
def test_smollm2_on_a_prompt_of_1500_tokens(large: Session) -> None:
    ids, right = smollm2_long()
    found = large.run(input_ids=np.array(ids), last=True)["logits"]
    assert relative_error(found, right) <= 1e-5
