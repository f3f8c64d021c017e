"""What `unitp diff` tells of two plans."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

import unitp
from unitp.certificate import CertifiedPlan
from unitp.errors import PlanError
from unitp.explain.description import describe
from unitp.explain.difference import difference
from unitp.mesh import Mesh
from unitp.plans import Phase
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.testing.models import mlp, tiny


@cache
def model() -> unitp.Model:
    return tiny()


@cache
def planned(*pins: str, tp: int = 2) -> CertifiedPlan:
    return unitp.plan(model(), Mesh(tp=tp), pins=pins)


PIN = "blk.*.ffn_down.weight: S(0)@tp"


def test_a_plan_is_the_same_as_itself() -> None:
    found = difference(planned(), planned(), model().graph, model().graph)
    assert found.same
    assert not found.changes
    assert not found.notes


def test_layers_that_differ_alike_are_one_line() -> None:
    a, b = planned(), planned(PIN)
    found = difference(a, b, model().graph, model().graph)
    (held,) = [c for c in found.changes if c.kind == "parameter" and "ffn_down" in c.what]
    assert (held.what, held.count, held.phase) == ("blk.*.ffn_down.weight", 2, "")
    assert held.b.startswith("tp[")
    unlike = sum(
        a.phase(p).nodes.get(n.name, {}) != b.phase(p).nodes.get(n.name, {})
        for p in ("prefill", "decode")
        for n in model().graph.nodes
    )
    assert sum(c.count for c in found.changes if c.kind == "operator") == unlike
    assert any(PIN in note for note in found.notes)


def test_moves_seconds_and_memory_are_those_of_each_plan() -> None:
    graph = model().graph
    both = planned(), planned(PIN)
    found = difference(*both, graph, graph)
    for place, plan in enumerate(both):
        own = {(m.phase, m.kind, m.axis): (m.count, m.bytes) for m in describe(plan, graph).moves}
        told = {(m.phase, m.kind, m.axis): ((m.count_a, m.bytes_a), (m.count_b, m.bytes_b))[place] for m in found.moves}
        assert own == {key: value for key, value in told.items() if value != (0, 0)}
        seconds = {c.what: (c.a, c.b)[place] for c in found.seconds}
        assert seconds == {"objective": plan.certificate.objective_s} | {p.phase.name: p.seconds for p in plan.phases}
        for row in found.memory:
            program = lower(graph, plan, row.what, outputs=("top_values", "top_ids"))
            assert (row.a, row.b)[place] == max(peak(program, rank).peak for rank in range(2))


def test_without_the_graph_layouts_and_seconds_are_compared() -> None:
    found = difference(planned(), planned(PIN))
    assert not found.moves
    assert found.changes
    assert any("--model" in note for note in found.notes)
    assert difference(planned(), planned()).same


def test_different_meshes_machines_and_phases_are_noted() -> None:
    a, b = planned(), planned(tp=3)
    found = difference(a, b, model().graph, model().graph)
    assert any("different meshes (tp=2; tp=3)" in note for note in found.notes)
    other = msgspec.structs.replace(b, certificate=msgspec.structs.replace(b.certificate, machine="other"))
    assert any("different machines" in note for note in difference(a, other).notes)
    longer = unitp.plan(
        model(),
        Mesh(tp=2),
        [Phase("decode", {"batch": 1, "seq": 1, "cache": 64}), Phase("late", {"batch": 1, "seq": 1, "cache": 9})],
    )
    notes = " ".join(difference(a, longer, model().graph, model().graph).notes)
    assert "phase decode has different sizes" in notes
    assert "only the first has phase prefill" in notes
    assert "only the second has phase late" in notes


def test_plans_for_different_graphs_are_compared_by_tensor_names() -> None:
    deeper = tiny(layers=3)
    b = unitp.plan(deeper, Mesh(tp=3))
    found = difference(planned(), b, model().graph, deeper.graph)
    assert {c.kind for c in found.changes} <= {"parameter", "state"}
    assert any("different graphs" in note for note in found.notes)
    assert any(note.startswith("only in the second: blk.*") for note in found.notes)
    assert found.moves


def test_plans_with_nothing_in_common_are_refused() -> None:
    other = unitp.plan(mlp(batch=4), Mesh(tp=2))
    with pytest.raises(PlanError, match=r"cannot be compared: one is for tiny, graph \w+, the other for mlp") as caught:
        difference(planned(), other)
    assert caught.value.hint
