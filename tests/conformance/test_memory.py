"""Memory is what was predicted: a program's peak is little more than the rank's shards and caches, and what a rank really
holds is little more than that peak.

SmolLM2 at the default context. What is predicted is computed here from the plan's layouts alone. What is measured is
resident memory above a worker that has joined its group and holds nothing.
"""

from __future__ import annotations

from math import prod

import pytest
from places import LARGE_CONTEXT, smollm2, smollm2_plan

from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.session.nearest_phase import choose_phase
from unitp.session.session import Session

MESHES = ["tp=1", "tp=2", "tp=3", "tp=4", "dp=2,tp=2"]
ROOM = 1.15
CONTEXT, CHUNK = LARGE_CONTEXT, 512
DECODE = {"seq": 1, "live": CONTEXT}
FIRST_CHUNK, LAST_CHUNK = {"seq": CHUNK, "live": CHUNK}, {"seq": CHUNK, "live": CONTEXT}
TOP = ("top_values", "top_ids")


def program_of(mesh: str, sizes: dict[str, int], outputs: tuple[str, ...] = TOP) -> Program:
    """What generation runs: logits of the last position only, and the best of them."""
    plan = smollm2_plan(mesh)
    all_sizes = {"batch": plan.mesh.sizes.get("dp", 1), "cache": CONTEXT, "take": 1, "candidates": 1, **sizes}
    return lower(smollm2().graph, plan, choose_phase(plan, all_sizes), all_sizes, outputs)


def shards_and_caches(mesh: str, rank: int) -> int:
    """Bytes of float32 that the plan's layouts give to a rank."""
    plan, graph = smollm2_plan(mesh), smollm2().graph
    sizes = {"batch": plan.mesh.sizes.get("dp", 1), "cache": CONTEXT}
    held = [(plan.parameters[p.name], p.type.sized(sizes)) for p in graph.parameters]
    held += [(plan.states[s.input], s.type.sized(sizes)) for s in graph.states]
    numbers = 0
    for layout, shape in held:
        numbers += prod(layout.bind(shape, plan.mesh).local_shape(shape, rank, plan.mesh))
    return 4 * numbers


@pytest.mark.parametrize("sizes", [DECODE, FIRST_CHUNK, LAST_CHUNK], ids=["decode", "first chunk", "last chunk"])
@pytest.mark.parametrize("mesh", MESHES)
def test_the_predicted_peak_is_shards_and_caches_and_little_more(mesh: str, sizes: dict[str, int]) -> None:
    program = program_of(mesh, sizes)
    for rank in range(program.mesh.size):
        held, need = shards_and_caches(mesh, rank), peak(program, rank)
        assert held <= need.peak <= ROOM * held, f"rank {rank}: {need}, shards and caches are {held}"


def test_all_logits_cost_what_they_are() -> None:
    """Only who asks for the logits of every position pays for them, and no more than once."""
    last, every = program_of("tp=2", LAST_CHUNK), program_of("tp=2", {**LAST_CHUNK, "take": CHUNK}, ("logits",))
    for rank in range(2):
        logits = 4 * prod(every.values["logits"].layout.local_shape((1, CHUNK, 49152), rank, every.mesh))
        assert peak(every, rank).peak <= peak(last, rank).peak + logits


def test_a_long_cache_is_not_paid_for_twice() -> None:
    """Scores are held for some queries at a time: a cache four times as long needs no more room to compute with."""
    short = program_of("tp=1", LAST_CHUNK)
    long = program_of("tp=1", {**LAST_CHUNK, "cache": 4 * CONTEXT, "live": 4 * CONTEXT})
    assert peak(long, 0).states == 4 * peak(short, 0).states
    assert peak(long, 0).activations <= 3 * peak(short, 0).activations


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.first  # what other tests leave in the caches would count
@pytest.mark.parametrize(
    "large",
    ["numpy", "torch", *(pytest.param(name, marks=pytest.mark.full) for name in ("tensorflow", "mxnet"))],
    indirect=True,
)
def test_a_rank_holds_what_was_predicted(large: Session) -> None:
    """Two prompts of 512 tokens, each with 32 steps of decoding: what the first leaves behind counts too."""
    prompt = [(7 * i * i + 3) % 49152 for i in range(CHUNK)]
    for _ in range(2):
        assert len(list(large.generate(prompt, 33, ignore_eos=True))) == 33
    for rank, measured in enumerate(large.memory()):
        predicted = max(peak(program, rank).peak for program in large.programs)
        most, now = measured.peak - measured.idle, measured.now - measured.idle
        assert now <= most <= ROOM * predicted, f"rank {rank}: {most / predicted:.3f} of {predicted} bytes"
        assert now >= shards_and_caches("tp=2", rank) // 2  # what is measured is the rank's, not an empty process
