"""Every backend agrees with the oracle: logits, tokens, float64; even and uneven widths, sub-groups, long prompts.

SmolLM2 at tp=2 and a generated model of its proportions at all widths; `full`: SmolLM2 at all widths.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

import unitp
from unitp.comparison.metrics import MEANING, bound, relative_error
from unitp.comparison.oracle import Oracle, of_prompts, one_rank
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import plan as plan_graph
from unitp.plans import Plan
from unitp.plugins.discover import backends
from unitp.runtime.launch import launch
from unitp.testing.models import EAGER_TO_SPLIT, tiny

BACKENDS = sorted(backends())
WIDTHS = ["tp=1", "tp=2", "tp=3", "tp=4", "dp=2,tp=2"]
REFERENCE = Path(__file__).parent / "smollm2.npz"
PROMPTS = [[7, 250, 3, 99, 41], [11, 8, 200, 1, 76]]

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@lru_cache
def tiny_model() -> Model:
    return tiny()


@lru_cache
def tiny_plan(mesh: str) -> Plan:
    model = tiny_model()
    return plan_graph(model.graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT)


@lru_cache
def tiny_oracle() -> Oracle:
    return of_prompts(tiny_model(), PROMPTS, 24, None)


def test_the_small_model_is_really_split():
    splits = {str(layout) for layout in tiny_plan("tp=4").parameters.values()}
    assert any("tp[" in s for s in splits)
    assert any("tp[" in str(layout) for layout in tiny_plan("tp=2").states.values())


@pytest.mark.parametrize("mesh", WIDTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_model_agrees_at_every_width(backend, mesh):
    model, oracle = tiny_model(), tiny_oracle()
    for dtype in ("float32", "float64"):
        with launch(model, tiny_plan(mesh), backend, dtype=dtype) as session:
            logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
            generation = session.generation(PROMPTS, 24)
            for _ in generation:
                pass
        error = relative_error(logits, oracle.outputs["logits"])
        assert error <= bound(dtype, oracle.errors["logits"]), f"{dtype}: {error}"
        assert generation.tokens == oracle.tokens


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
    return plan_graph(tiny_model().graph, Mesh(tp=3), machine=machine)


def test_bounds_follow_the_speed_of_unlike_devices():
    caches = {str(layout) for layout in unlike_plan().states.values()}
    assert caches == {"[-, tp[0:2 2:3 3:3], -, -]"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_model_agrees_on_unlike_devices(backend):
    """Unequal parts, and none at all, of heads, columns, vocabulary and caches."""
    model, oracle = tiny_model(), tiny_oracle()
    with launch(model, unlike_plan(), backend, dtype="float64") as session:
        logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
        generation = session.generation(PROMPTS, 24)
        for _ in generation:
            pass
    assert relative_error(logits, oracle.outputs["logits"]) <= bound("float64", oracle.errors["logits"])
    assert generation.tokens == oracle.tokens


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_prompt_in_chunks(backend):
    """Past the chunk of 512, with caches that are read further at every call."""
    model = tiny_model_of(2048)
    ids = [[(7 * i * i + 3) % 257 for i in range(1500)]]
    with launch(model, one_rank(model), "numpy", dtype="float64", context=1600) as session:
        right = session.run(input_ids=np.array(ids), last=True)["logits"]
    plan = plan_graph(model.graph, Mesh(tp=2), machine=EAGER_TO_SPLIT)
    with launch(model, plan, backend, context=1600) as session:
        found = session.run(input_ids=np.array(ids), last=True)["logits"]
    assert relative_error(found, right) <= 1e-5


@lru_cache
def tiny_model_of(context: int) -> Model:
    import msgspec

    from unitp.testing.models import TINY

    return tiny(msgspec.structs.replace(TINY, max_context=context))


def reference_agrees(backend: str, mesh: str) -> None:
    """Against llama.cpp in float32: last logits within 1e-4, all greedy tokens."""
    model = unitp.load("smollm2-135m")
    plan = unitp.plan(model, mesh=Mesh.parse(mesh))
    with np.load(REFERENCE, allow_pickle=False) as found:
        reference = dict(found)
    copies = plan.mesh.sizes.get("dp", 1)
    with launch(model, plan, backend, context=512) as session:
        for name in ("capital", "code"):
            prompts = [reference[f"{name}.prompt_ids"].tolist()] * copies
            greedy = reference[f"{name}.greedy_ids"].tolist()
            logits = session.run(input_ids=np.array(prompts), last=True)["logits"][:, -1]
            assert np.abs(logits - reference[f"{name}.last_logits"]).max() <= 1e-4
            generation = session.generation(prompts, len(greedy))
            for _ in generation:
                pass
            assert generation.tokens == [greedy] * copies


@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_on_two_ranks_is_what_llama_cpp_says(backend):
    reference_agrees(backend, "tp=2")


@pytest.mark.full
@pytest.mark.parametrize("mesh", ["tp=1", "tp=3", "tp=4", "dp=2,tp=2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_at_every_width_is_what_llama_cpp_says(backend, mesh):
    reference_agrees(backend, mesh)


@lru_cache
def smollm2_oracle() -> Oracle:
    return of_prompts(unitp.load("smollm2-135m"), [[504, 3575, 282, 4649, 314]], 8, 512)


@pytest.mark.full
@pytest.mark.parametrize("mesh", ["tp=1", "tp=2", "tp=3", "tp=4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_means_the_same_in_float64(backend, mesh):
    model, oracle = unitp.load("smollm2-135m"), smollm2_oracle()
    with launch(model, unitp.plan(model, mesh=Mesh.parse(mesh)), backend, dtype="float64", context=512) as session:
        logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
    assert relative_error(logits, oracle.outputs["logits"]) <= MEANING


@lru_cache
def smollm2_long() -> tuple[list[list[int]], np.ndarray]:
    model = unitp.load("smollm2-135m")
    ids = [[(7 * i * i + 3) % 49152 for i in range(1500)]]
    with launch(model, one_rank(model), "numpy", dtype="float64", context=1600) as session:
        return ids, session.run(input_ids=np.array(ids), last=True)["logits"]


@pytest.mark.full
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_on_a_prompt_of_1500_tokens(backend):
    model, (ids, right) = unitp.load("smollm2-135m"), smollm2_long()
    with launch(model, unitp.plan(model, mesh=Mesh(tp=2)), backend, context=1600) as session:
        found = session.run(input_ids=np.array(ids), last=True)["logits"]
    assert relative_error(found, right) <= 1e-5
