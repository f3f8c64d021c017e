"""Pins: what they match, what they fix, what is wrong with them, and Megatron's plan built from them."""

from __future__ import annotations

from functools import cache

import pytest

import unitp
from unitp import plan_file
from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.errors import InputError, PlanError
from unitp.explain.alternatives import Alternatives
from unitp.explain.description import moved
from unitp.frontends.llama import LlamaConfig
from unitp.graph.graph import Graph
from unitp.graph.values import Node
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.planner.problem.pin_notation import Atom, parse, written
from unitp.planner.problem.pins import matches
from unitp.plans import Phase, Plan
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.program.objective import predicted_seconds
from unitp.testing.megatron import MEGATRON, by_sequence
from unitp.testing.models import tiny


@cache
def model() -> unitp.Model:
    return tiny()


def planned(*pins: str, **mesh: int) -> CertifiedPlan:
    return unitp.plan(model(), Mesh(**(mesh or {"tp": 2})), pins=pins)


def refused(*pins: str) -> str:
    with pytest.raises(PlanError) as caught:
        planned(*pins)
    return str(caught.value)


# reading


def test_a_pin_is_read() -> None:
    assert parse("blk.*.ffn_down.weight: S(1)@tp").atoms == (Atom("", "S", "tp", 1),)
    pin = parse("decode/mlp/down : x=S(-1)@tp, R@dp,y = P@tp", ["prefill", "decode"])
    assert (pin.phase, pin.pattern) == ("decode", "mlp/down")
    assert pin.atoms == (Atom("x", "S", "tp", -1), Atom("x", "R", "dp"), Atom("y", "P", "tp"))
    assert parse("other/x: R").pattern == "other/x", "no phase of that name: it is part of the pattern"


def test_a_pin_names_a_layout_in_the_notation_of_all_layouts() -> None:
    column = Layout((None, Split(("tp",), ((0, 5), (5, 9)))))
    assert parse("w:-, tp[0:5 5:9]").atoms == (Atom("", "L", layout=column),)
    pin = parse("names:0/down: x=-,-|sum:dp+tp, y = dp*tp[even],-, S(0)@tp")
    assert pin.pattern == "names:0/down"
    assert [a.layout for a in pin.atoms[:2]] == [
        Layout((None, None), ("dp", "tp")), Layout((Split(("dp", "tp")), None)),
    ]  # fmt: skip
    assert pin.atoms[2] == Atom("y", "S", "tp", 0)


def test_a_layout_that_explain_prints_can_be_pinned() -> None:
    free = planned()
    alternatives = Alternatives(free, model().graph)
    for name in ("blk.0.ffn_down.weight", "past_key_0"):
        (place,) = alternatives.at(name)[:1]
        other = next(a for a in place.alternatives if not a.chosen and a.regret_s < float("inf") and "[" in a.choice)
        made = planned(f"{name}: {other.choice}")
        assert str({**made.parameters, **made.states}[name]) == other.choice
        assert str({**free.parameters, **free.states}[name]) != other.choice


@pytest.mark.parametrize(
    "text, message",
    [
        ("S(0)@tp", 'has no "PATTERN:"'),
        (": S(0)@tp", 'has no "PATTERN:"'),
        ("w:", '"" is not S\\(DIM\\)@AXIS'),
        ("w: S@tp", '"S@tp" is not'),
        ("w: R(1)@tp", r'"R\(1\)@tp" is not'),
        ("w: S(0)", "names no axis"),
        ("w: P", "names no axis"),
        ("w: T(0)@tp", "is not"),
        ("w: z=R", '"z=R" is not'),
        ("w: tp[0:5", r'"tp\[0:5" is not a split'),
        ("w: -,tp[5]", r'"tp\[5\]" is not a split'),
        ("w: -,-|mean:tp", "is not a layout"),
        ("w: -|sum:", "is not a layout"),
        ("w: R, x=R", "the first layout names no operand, a later one does"),
    ],
)
def test_what_is_no_pin_is_said(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(text)
    assert caught.value.hint


def test_names_match_as_globs_and_by_their_leading_part() -> None:
    assert matches("blk.*.ffn_down*", "blk.3.ffn_down.weight")
    assert matches("blk.*.ffn_down", "blk.3.ffn_down.weight")
    assert matches("odd[0]", "odd[0]")
    assert not matches("ffn_down", "blk.3.ffn_down.weight")


def test_a_layout_is_written_as_pins_write_it() -> None:
    made = planned("blk.*.ffn_down.weight: S(1)@tp", tp=2, dp=1)
    assert {written(at) for name, at in made.parameters.items() if "ffn_down" in name} == {"S(1)@tp"}
    assert written(Layout.replicated(2)) == "R"


# what they fix


@pytest.mark.parametrize("choice", ["S(0)@tp", "S(1)@tp", "R@tp", "R"])
def test_a_weight_is_held_as_it_is_pinned(choice: str) -> None:
    made = planned(f"blk.*.ffn_down.weight: {choice}")
    found = {written(at) for name, at in made.parameters.items() if "ffn_down" in name}
    assert found == {choice.replace("R@tp", "R")}
    for phase in made.phases:
        check(lower(model().graph, made, phase.phase.name), model().graph)


def test_an_operator_is_split_as_it_is_pinned_in_that_phase_only() -> None:
    made = planned("decode/blk.*.ffn_down.weight: x=S(2)@tp, y=P@tp", "prefill/blk.*.ffn_down.weight: x=R, y=S(2)@tp")
    down = {n.name for n in model().graph.nodes if n.op == "MatMul" and down_of(n)}
    assert len(down) == 2
    for name in down:
        assert list(made.phase("decode").nodes[name]) == ["k"]
        assert list(made.phase("prefill").nodes[name]) == ["n"]


def down_of(node: Node) -> bool:
    transposed = {n.name for n in model().graph.nodes if any("ffn_down" in i for i in n.inputs)}
    return any(name in transposed for name in node.inputs)


def test_a_value_is_held_as_it_is_pinned() -> None:
    made = planned("prefill/add_*: S(-1)@tp")
    held = {name: written(at) for name, at in made.phase("prefill").values.items() if name.startswith("add_")}
    assert set(held.values()) == {"S(2)@tp"}


def test_pins_cost_what_they_cost_and_are_kept_in_the_file() -> None:
    pins = ("blk.*.attn_norm: R", "blk.*.ffn_down.weight: S(0)@tp")
    made, free = planned(*pins), planned()
    assert made.certificate.objective_s > free.certificate.objective_s
    assert made.certificate.pins == pins
    assert plan_file.decode(plan_file.encode(made)) == made
    for phase in made.phases:
        program = lower(model().graph, made, phase.phase.name)
        took = predicted_seconds(program, Machine())
        assert 0.95 * phase.seconds < took < phase.seconds * 1.00001, "a conversion that two share is made once"
    assert planned("blk.*: R").certificate.objective_s >= free.certificate.objective_s


def test_a_pin_on_what_is_chosen_anyway_changes_nothing() -> None:
    free = planned()
    pins = [f"{name}: {atom}" for name, at in free.parameters.items() for atom in written(at).split()]
    made = planned(*pins)
    assert made.parameters == free.parameters
    assert made.certificate.objective_s == pytest.approx(free.certificate.objective_s, rel=1e-12)


# what is wrong with them


def test_a_pin_that_matches_nothing_is_named_with_what_is_near() -> None:
    text = refused("blk.0.fn_down.weight: R", "ad_25: x=R")
    assert 'pin "blk.0.fn_down.weight: R": "blk.0.fn_down.weight" matches no tensor of tiny. Did you mean' in text
    assert '"ad_25" matches no operator' in text, "all of them are told at once"


def test_a_pin_that_no_candidate_satisfies_tells_what_matched_and_what_is_legal() -> None:
    text = refused("blk.*.ffn_down.weight: x=S(1)@tp")
    assert "no candidate of matmul_34, matmul_69 satisfies it; legal there: x=R; x=S(2)@tp" in text
    assert "unitp explain" in text


def test_legal_choices_nearest_to_the_pin_come_first() -> None:
    text = refused("matmul_34: x=S(2)@tp, y=R")
    assert "legal there: x=S(2)@tp, y=P@tp" in text


@pytest.mark.parametrize(
    "pin, message",
    [
        ("blk.*.ffn_down.weight: S(0)@tq", 'axis "tq" is not on the mesh tp=2. Did you mean "tp"?'),
        ("blk.0.ffn_down.weight: S(2)@tp", "blk.0.ffn_down.weight has 2 dims, there is no dim 2"),
        ("matmul_34: x=S(3)@tp", "x of matmul_34 has 3 dims, there is no dim 3"),
        ("matmul_34: x9=R", "MatMul matmul_34 has no x9; it has x, w, y, x0, x1, y0"),
        ("decode/blk.0.ffn_down.weight: R", "has one layout for all phases: leave out decode/"),
    ],
)
def test_an_illegal_pin_is_refused_with_its_reason(pin: str, message: str) -> None:
    assert f'pin "{pin}": ' in (text := refused(pin))
    assert message in text


def test_an_axis_of_one_coordinate_splits_nothing() -> None:
    with pytest.raises(PlanError, match="axis dp has length 1"):
        planned("blk.0.ffn_down.weight: S(0)@dp", dp=1, tp=2)
    assert planned("blk.0.ffn_down.weight: R@dp", dp=1, tp=2).certificate.gap == 0


def test_pins_that_contradict_each_other_are_named_together() -> None:
    text = refused("matmul_34: x=R", "blk.0.ffn_down.weight: y=P@tp")
    assert '"matmul_34: x=R" and "blk.0.ffn_down.weight: y=P@tp" leave no choice for matmul_34' in text


# Megatron's plan

LLAMA = LlamaConfig(
    layers=4, width=4096, heads=32, kv_heads=8, head_dim=128, hidden=14336, vocab=128256, max_context=8192
)
SIZES = {"batch": 1, "seq": 512, "cache": 512, "live": 512, "take": 1, "candidates": 1}
NVLINK = Machine(
    flops_per_s=3e14,
    memory_bytes_per_s=2e12,
    operator_s=3e-6,
    link_latency_s=1e-6,
    link_bytes_per_s=3e11,
    call_s=5e-6,
)


@cache
def llama() -> Graph:
    return tiny(LLAMA, "llama").graph


@cache
def at_eight(*pins: str) -> CertifiedPlan:
    return plan_graph(Request(llama(), Mesh(tp=8), [Phase("prefill", SIZES)], machine=NVLINK, pins=pins))


def collectives(plan: Plan) -> dict[str, int]:
    return {m.kind: m.count for m in moved(lower(llama(), plan, "prefill", outputs=("top_values",)))}


def test_megatrons_plan_is_built_with_pins_and_beaten_or_met() -> None:
    made = at_eight(*MEGATRON)
    assert collectives(made)["all_reduce"] == 2 * LLAMA.layers + 1, "two a layer, and one for the embedding"
    assert at_eight().certificate.objective_s <= made.certificate.objective_s * (1 + 1e-12)


def test_megatrons_plan_by_sequence_is_built_with_pins_and_beaten_or_met() -> None:
    made = at_eight(*by_sequence())
    found = collectives(made)
    assert found["reduce_scatter"] == 2 * LLAMA.layers, "sums are scattered instead"
    assert found["all_gather"] >= 2 * LLAMA.layers
    assert found.get("all_reduce", 0) <= 1, "of the embedding"
    assert at_eight().certificate.objective_s <= made.certificate.objective_s * (1 + 1e-12)
    assert made.certificate.objective_s < at_eight(*MEGATRON).certificate.objective_s


@pytest.mark.parametrize("pins", [(), MEGATRON, by_sequence()])
def test_a_pinned_plan_is_as_slow_as_its_program(pins: tuple[str, ...]) -> None:
    made = at_eight(*pins)
    program = lower(llama(), made, "prefill")
    check(program, llama())
    assert predicted_seconds(program, NVLINK) == pytest.approx(made.phases[0].seconds, rel=1e-4)
