"""What `unitp explain` tells: totals are those of the fastest plans with the choice pinned, and places alike are one line."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

import unitp
from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.errors import PlanError
from unitp.explain import alternatives
from unitp.explain.alternatives import Alternatives, machine_note
from unitp.explain.patterns import Places, layer_of, pattern
from unitp.mesh import Mesh
from unitp.planner.solve.elimination import TooWideError
from unitp.testing.models import EAGER_TO_SPLIT, tiny


@cache
def model() -> unitp.Model:
    return tiny()


@cache
def planned(*pins: str) -> CertifiedPlan:
    return unitp.plan(model(), Mesh(tp=2), pins=pins)


@cache
def found() -> Alternatives:
    return Alternatives(planned(), model().graph)


@pytest.mark.parametrize(
    "name", ["blk.0.ffn_down.weight", "token_embd.weight", "past_key_1", "attention_20", "matmul_34"]
)
def test_a_total_is_that_of_the_fastest_plan_with_the_choice_pinned(name: str) -> None:
    compared = 0
    for place in found().at(name):
        assert [a.chosen for a in place.alternatives] == [True] + [False] * (len(place.alternatives) - 1)
        assert place.alternatives[0].regret_s == 0
        pins = [a.pin for a in place.alternatives]
        for a in place.alternatives:
            if pins.count(a.pin) > 1 or len(place.names) > 1:
                continue  # another choice has the same layouts but for bounds, or other layers would be pinned, too
            where = f"{place.phase}/" if place.phase else ""
            atoms = a.pin if place.kind == "node" else a.pin.replace(" ", ", ")
            forced = unitp.plan(model(), Mesh(tp=2), pins=[f"{where}{place.names[0]}: {atoms}"])
            assert a.total_s == pytest.approx(forced.certificate.fastest_s, rel=1e-12), (place.what, a.pin)
            assert a.total_s == pytest.approx(found().objective + a.regret_s, rel=1e-12)
            for phase in forced.phases:
                assert a.phases[phase.phase.name] > 0
            compared += 1
    assert compared


def test_the_objective_is_that_of_the_certificate() -> None:
    assert found().objective == pytest.approx(planned().certificate.objective_s, rel=1e-12)
    assert found().exact
    assert found().same_prices
    assert machine_note(found()) == ""


def test_a_weight_stands_for_the_operators_that_read_it_and_layers_alike_are_one_place() -> None:
    places = found().at("blk.*.ffn_down")
    assert {(p.kind, p.phase) for p in places} >= {("parameter", ""), ("node", "prefill"), ("node", "decode")}
    held = [p for p in places if p.kind == "parameter"]
    assert sorted(name for p in held for name in p.names) == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert {p.what for p in held} == {"blk.*.ffn_down.weight"}
    smollm = unitp.load("smollm2-135m")
    explained = Alternatives(unitp.plan(smollm, Mesh(tp=2)), smollm.graph)
    alike = [len(p.names) for p in explained.at("blk.*.ffn_down.weight") if p.kind == "parameter"]
    assert max(alike) >= 28, "but for the last layers, whose neighbours are others"
    assert sum(alike) == 30


def test_what_a_pin_costs_is_seen_at_its_place() -> None:
    pinned = planned("blk.0.ffn_down.weight: S(0)@tp")
    (held,) = [p for p in Alternatives(pinned, model().graph).at("blk.0.ffn_down.weight") if p.kind == "parameter"]
    assert held.alternatives[0].chosen
    assert held.alternatives[0].pin == "S(0)@tp"
    out = [a for a in held.alternatives if a.pinned_out]
    assert len(out) == len(held.alternatives) - 1
    best = min(out, key=lambda a: a.total_s)
    assert best.total_s == pytest.approx(planned().certificate.objective_s, rel=1e-12)
    assert best.regret_s < 0


def test_costs_of_places_add_up_to_the_call() -> None:
    for phase in planned().phases:
        costs = [c for c in found().expensive(most=10**6) if c.phase == phase.phase.name]
        assert sum(c.own_s + c.in_s for c in costs) == pytest.approx(phase.seconds, rel=1e-9)
        assert [c.own_s + c.in_s for c in costs] == sorted((c.own_s + c.in_s for c in costs), reverse=True)


def test_the_most_contested_choices_have_the_smallest_regrets() -> None:
    near = found().contested(5)
    assert [c.regret_s for c in near] == sorted(c.regret_s for c in near)
    assert all(c.regret_s > 0 and c.choice != c.instead for c in near)
    place = next(p for p in found().at(near[0].names[0]) if (p.kind, p.phase) == (near[0].kind, near[0].phase))
    assert min(a.regret_s for a in place.alternatives if not a.chosen) == pytest.approx(near[0].regret_s, rel=1e-5)


def test_where_exact_totals_are_too_wide_others_keep_their_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_wide(*_: object) -> None:
        raise TooWideError(20, 10**9)

    monkeypatch.setattr(alternatives, "Marginals", too_wide)
    given = Alternatives(planned(), model().graph)
    given.marginals  # noqa: B018 - made while its exact form is refused
    monkeypatch.undo()
    assert not given.exact
    for name in ("blk.0.ffn_down.weight", "attention_20"):
        for place, exact in zip(given.at(name), found().at(name), strict=True):
            totals = {a.choice: a.total_s for a in exact.alternatives}
            for a in place.alternatives:
                assert a.total_s >= totals[a.choice] * (1 - 1e-12)
    assert all(c.phase for c in given.contested())


def test_prices_of_another_machine_are_said() -> None:
    other = Alternatives(planned(), model().graph, EAGER_TO_SPLIT)
    assert not other.same_prices
    assert Machine().hash in machine_note(other)
    assert EAGER_TO_SPLIT.hash in machine_note(other)


def test_an_unknown_name_is_an_error_with_what_is_near() -> None:
    with pytest.raises(PlanError, match="is not a tensor or operator of tiny") as caught:
        found().at("blk.0.fn_down.weight")
    assert 'Did you mean "blk.0' in caught.value.hint


def test_a_plan_that_no_candidate_gives_is_refused() -> None:
    made = planned()
    phase = made.phase("prefill")
    name = next(n for n, splits in phase.nodes.items() if splits)
    factor, split = next(iter(phase.nodes[name].items()))
    rows = split.intervals[-1][1]
    odd = msgspec.structs.replace(split, intervals=((0, 1), (1, rows)))
    assert odd != split
    nodes = {**phase.nodes, name: {**phase.nodes[name], factor: odd}}
    edited = msgspec.structs.replace(made, phases=(msgspec.structs.replace(phase, nodes=nodes), *made.phases[1:]))
    with pytest.raises(PlanError, match=f"node {name} in prefill in a way that this planner does not consider"):
        Alternatives(edited, model().graph)


# names of places


def test_places_are_named_by_the_weight_that_they_alone_read() -> None:
    places = Places(model().graph)
    labels = [places.of(node) for node in model().graph.nodes]
    for wanted in (
        "Gather token_embd.weight",
        "MatMul blk.*.ffn_down.weight",
        "Swish after blk.*.ffn_gate.weight",
        "RotaryEmbedding after blk.*.attn_k.weight",
        "Add after blk.*.ffn_down.weight",
    ):
        assert wanted in labels
    assert places.label("past_key_1") == "past_key_*"
    assert {places.layer(n) for n in model().graph.nodes if places.of(n) == "MatMul blk.*.ffn_down.weight"} == {0, 1}


def test_numbers_in_names_count_layers() -> None:
    assert pattern("blk.17.attn_q.weight") == "blk.*.attn_q.weight"
    assert layer_of("blk.17.attn_q.weight") == 17
    assert layer_of("token_embd.weight") is None
    assert layer_of("w2") is None
