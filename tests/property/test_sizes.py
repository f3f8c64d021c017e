"""A plan is made for the sizes of its phases and serves any: dims split by symbol (batch, positions, candidates) may have
fewer rows than ranks, one, or a number that does not divide. Judged against one rank, in float64, to 1e-12.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unitp.comparison.metrics import MEANING, relative_error
from unitp.cost import Machine
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase, Plan, unsplit
from unitp.session.decoder import ALL_LOGITS, LAST_LOGITS, Decoder, Head
from unitp.testing.calls import SimulatedCalls, whole_parameters
from unitp.testing.models import EAGER_TO_SPLIT, tiny
from unitp.testing.random_plans import random_plan

Array = npt.NDArray[Any]

CACHE, LIVE = 24, 20
MESHES = ["tp=2", "tp=3", "tp=4", "x=2,y=2"]


@lru_cache
def graph() -> Graph:
    return tiny().graph


@lru_cache
def parameters() -> dict[str, Array]:
    return whole_parameters(graph())


def phase(name: str, weight: float = 1.0, **sizes: int) -> Phase:
    plain = {"batch": 1, "seq": 1, "cache": 512, "live": 512, "take": 1, "candidates": 1}
    return Phase(name, plain | sizes, weight)


PHASES: dict[str, list[Phase] | None] = {
    "prefill and decode": None,
    "positions alone": [phase("prefill", seq=64)],
    "a batch": [phase("prefill", batch=4, seq=64), phase("decode", 200.0, batch=4)],
    "all logits": [phase("prefill", batch=4, seq=64, take=64), phase("decode", batch=8, take=1, candidates=5)],
}


@lru_cache
def planned(mesh: str, phases: str, eager: bool) -> Plan:
    machine = EAGER_TO_SPLIT if eager else Machine()
    return plan(Request(graph(), Mesh.parse(mesh), PHASES[phases] or (), machine=machine))


@lru_cache
def random(mesh: str, seed: int) -> Plan:
    return random_plan(graph(), Mesh.parse(mesh), seed)


@lru_cache
def one_rank() -> Plan:
    return unsplit(graph(), [Phase("main", {})])


def call(decided: Plan, batch: int, seq: int, outputs: tuple[str, ...], take: int, candidates: int) -> dict[str, Array]:
    """The outputs of a call over caches that hold something already, and what it leaves in them."""
    rng = np.random.default_rng(100 * batch + seq)
    past = rng.integers(0, LIVE - seq + 1, batch)
    calls = SimulatedCalls(graph(), decided, parameters())
    named = {"batch": batch, "cache": CACHE}
    shapes = {s.input: [named[d] if isinstance(d, str) else d for d in s.type.shape] for s in graph().states}
    calls.states = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    inputs = {
        "input_ids": rng.integers(0, 257, (batch, seq)),
        "position_ids": past[:, None] + np.arange(seq),
        "write_indices": past,
        "kv_length": past + seq,
        "logits_index": rng.integers(0, seq, (batch, take)),
    }
    sizes = {"batch": batch, "seq": seq, "cache": CACHE, "live": LIVE, "take": take, "candidates": candidates}
    return calls.execute(sizes, outputs, inputs) | calls.states


@lru_cache
def expected(batch: int, seq: int, outputs: tuple[str, ...], take: int, candidates: int) -> dict[str, Array]:
    return call(one_rank(), batch, seq, outputs, take, candidates)


def agree(decided: Plan, batch: int, seq: int, outputs: tuple[str, ...], take: int = 1, candidates: int = 1) -> None:
    found = call(decided, batch, seq, outputs, take, candidates)
    for name, right in expected(batch, seq, outputs, take, candidates).items():
        where = f"{name} at batch {batch}, seq {seq}, take {take}, candidates {candidates}"
        if right.dtype.kind == "f":
            assert relative_error(found[name], right) <= MEANING, where
        else:
            assert np.array_equal(found[name], right), where


def test_these_plans_split_what_is_known_only_at_run_time() -> None:
    found = set()
    for phases in PHASES:
        made = [planned("tp=2", phases, eager) for eager in (True, False)]
        splits = (s for p in made for ph in p.phases for splits in ph.nodes.values() for s in splits.values())
        found |= {phases for s in splits if s.open}
    assert found == set(PHASES)
    assert any(s.open for p in random("tp=2", 0).phases for n in p.nodes.values() for s in n.values())


@pytest.mark.parametrize("phases", PHASES)
@pytest.mark.parametrize("mesh", MESHES)
def test_a_plan_serves_every_number_of_positions(mesh: str, phases: str) -> None:
    for eager, lengths in ((True, range(1, 10)), (False, (1, 2, 3, 5))):
        for seq in lengths:
            agree(planned(mesh, phases, eager), 1 + 2 * (seq % 2), seq, ("logits",), take=1 if seq % 3 else seq)
        agree(planned(mesh, phases, eager), 2, 1, ("top_values", "top_ids"), candidates=5)
        agree(planned(mesh, phases, eager), 1, 7, ("top_values", "top_ids"), candidates=3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mesh", [*MESHES, "x=2,y=3"])
def test_any_legal_plan_serves_every_size(mesh: str, seed: int) -> None:
    for batch, seq in ((1, 1), (1, 2), (3, 1), (2, 5), (5, 3)):
        agree(random(mesh, seed), batch, seq, ("logits",), take=min(seq, 1 + seed % 3))
    agree(random(mesh, seed), 2, 3, ("top_values", "top_ids"), candidates=1 + seed)


def conversation(decided: Plan, batch: int, context: int, turns: list[list[list[int]]], head: Head) -> list[Array]:
    """What a decoder answers to several turns of unlike lengths."""
    decoder, calls = Decoder(graph(), context), SimulatedCalls(graph(), decided, parameters())
    held: list[list[int]] = [[] for _ in range(batch)]
    rows = [decoder.feed(calls.execute, held, turn, head) for turn in turns]
    return [array for turn in rows for row in turn for array in row.values()]


CONVERSATIONS = {
    "one token": (128, [[[5]], [[6]], [[7]]]),
    "short and odd": (128, [[[5, 9, 200]], [[6]], [[3] * 17], [[8, 8]]]),
    "unlike lengths": (128, [[[1], [2] * 5, [3] * 19], [[4], [], [5]], [[], [9, 9, 9], []]]),
    "up to the last row": (128, [[[*range(121)]], [[1, 2, 3]], [[4]], [[5, 6]], [[7]]]),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "x=2,y=2"])
def test_a_conversation_is_the_same_on_any_mesh(mesh: str, name: str) -> None:
    context, turns = CONVERSATIONS[name]
    for head, decided in (
        (ALL_LOGITS, planned(mesh, "prefill and decode", True)),
        (ALL_LOGITS, planned(mesh, "prefill and decode", False)),
        (LAST_LOGITS, random(mesh, 1)),
    ):
        right = conversation(one_rank(), len(turns[0]), context, turns, head)
        found = conversation(decided, len(turns[0]), context, turns, head)
        assert max(relative_error(a, b) for a, b in zip(found, right, strict=True)) <= MEANING
