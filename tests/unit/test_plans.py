"""A plan's file is small, stable, and read back as it was; whatever else is in it is a PlanError, not a crash later."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unitp
from unitp import plan_file, plans
from unitp.certificate import CertifiedPlan, certified
from unitp.errors import PlanError, UnitpError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase, Plan
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.testing.models import EAGER_TO_SPLIT, mlp, tiny
from unitp.testing.random_graphs import random_graph
from unitp.testing.random_plans import random_plan

MESHES = [Mesh(tp=2), Mesh(tp=3), Mesh(dp=2, tp=2), Mesh(dp=2, tp=3)]


@cache
def planned() -> tuple[Graph, CertifiedPlan, bytes]:
    """A small decoder, its plan on 2 x 2 ranks, and that plan's file."""
    graph = tiny().graph
    made = plan(Request(graph, Mesh(dp=2, tp=2), machine=EAGER_TO_SPLIT, model="tiny"))
    return graph, made, plan_file.encode(made)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), mesh=st.sampled_from(MESHES))
def test_random_plans_are_read_back_as_they_were(seed: int, mesh: Mesh) -> None:
    graph = random_graph(seed)
    made = random_plan(graph, mesh, seed)
    given = certified(made, planned()[1].certificate)
    back = plan_file.decode(plan_file.encode(given))
    assert back == given
    plans.require(back, graph)


def test_a_plan_with_phases_and_open_splits_is_read_back_as_it_was(tmp_path: Path) -> None:
    graph, made, data = planned()
    plan_file.save(made, tmp_path / "plan.json")
    assert plan_file.load(tmp_path / "plan.json") == made
    assert plan_file.encode(plan_file.load(tmp_path / "plan.json")) == data
    plans.require(made, graph)


def test_files_of_one_plan_differ_in_the_time_it_took_only() -> None:
    graph, made, _ = planned()
    again = plan(Request(graph, Mesh(dp=2, tp=2), machine=EAGER_TO_SPLIT, model="tiny"))
    timeless = msgspec.structs.replace(again.certificate, elapsed_s=made.certificate.elapsed_s)
    assert plan_file.encode(msgspec.structs.replace(again, certificate=timeless)) == plan_file.encode(made)


def test_a_real_models_plan_is_small_and_names_few_splits() -> None:
    data = plan_file.encode(unitp.plan(unitp.load("smollm2-135m"), unitp.Mesh(tp=2)))
    splits = json.loads(data)["splits"]
    assert len(splits) <= 9
    assert "tp[0:320 320:576]" in splits.values()  # 9 heads of 64 rows: 5 + 4
    assert "tp[0:128 64:192]" in splits.values()  # the 3 KV heads under them, the middle one held twice
    assert len(data) < 120_000
    assert max(map(len, data.splitlines())) < 100


def test_a_file_cut_anywhere_is_no_plan() -> None:
    _, made, data = planned()
    for length in range(0, len(data) - 1):
        with pytest.raises(PlanError, match="plan"):
            plan_file.decode(data[:length])
    assert plan_file.decode(data) == made


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON tree."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(path for key, value in inside for path in places(value, (*at, key)))]


def found(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


STRANGE = [
    "s1", "-", "-,-", "s1,s1", "-,s3", "-|sum:tp", "-,-|max:dp", "tp[0:1]", "tp[0:2 2:3]", "tp[0:2 1:3]", "tp[0:2 3:4]", "dp[even]",
    "tp*dp[0:1 1:2 2:3 3:4]", "tp[]", "[0:1]", "", 0, -1, 3, 1.5, 1e300, None, [], {}, True, "x",
]  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_a_changed_file_is_a_plan_that_works_or_an_error_of_ours(data: st.DataObject) -> None:
    graph, _, file = planned()
    tree = json.loads(file)
    path = data.draw(st.sampled_from(places(tree)[1:]))
    holder = found(tree, path[:-1])
    how = data.draw(st.sampled_from(["dropped", "replaced", "renamed", "copied"]))
    if how == "dropped":
        del holder[path[-1]]
    elif how == "replaced" or not isinstance(holder, dict):
        holder[path[-1]] = data.draw(st.sampled_from(STRANGE))
    elif how == "renamed":
        holder[data.draw(st.sampled_from(["other", "k", "n", "b", "tp"]))] = holder.pop(path[-1])
    else:
        holder[path[-1]] = found(json.loads(file), data.draw(st.sampled_from(places(json.loads(file)))))
    try:
        read = plan_file.decode(json.dumps(tree).encode())
        plans.require(read, graph)
        for phase in read.phases:
            check(lower(graph, read, phase.phase.name), graph)
    except UnitpError as error:
        refused = error.exit_code
    else:
        refused = 0
    assert refused in (0, 2)


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_a_plan_or_a_plan_error(at: int, byte: int) -> None:
    data = bytearray(planned()[2])
    data[at % len(data)] = byte
    with contextlib.suppress(PlanError):
        assert isinstance(plan_file.decode(bytes(data)), CertifiedPlan)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 200_000, b'{"schema": 2}'])
def test_other_files_are_no_plans(data: bytes) -> None:
    with pytest.raises(PlanError, match=r"x.json is not a plan") as caught:
        plan_file.decode(data, "x.json")
    assert "unitp plan" in caught.value.hint


def edited(**fields: Any) -> bytes:
    return json.dumps(json.loads(planned()[2]) | fields).encode()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"schema": 3}, r"has plan schema 3, but this unitp reads 2\n"),
        (
            {"schema": 1},
            "has plan schema 1, but this unitp reads 2: in its objective, bound and gap, every byte held had a price",
        ),
        ({"more": 1}, "unknown field `more`"),
        ({"mesh": {"tp": 0}}, "mesh axis tp has size 0"),
        ({"mesh": {"self": 2}}, "names an axis that is not on the mesh"),
        ({"splits": {}}, r'names split "s\d", which its table does not have'),
        ({"splits": {"s1": "tp[0:5 6:9]"}}, r'split s1, "tp\[0:5 6:9\]", is wrong .* no rank holds rows 5:6'),
        ({"splits": {"s1": "tp[0:5]"}}, "1 intervals for 2 coordinates"),
        ({"splits": {"s1": "tp 0:5"}}, "is not a split"),
        ({"states": {"past_key_0": "-,-,-,-|sum:pp"}}, "is not a layout on the mesh"),
        ({"states": {"past_key_0": "-,-,-,-|mean:tp"}}, "is not a layout; write partial ones as"),
        ({"states": {"past_key_0": "-,,-,-"}}, 'names split "", which its table does not have'),
        ({"phases": []}, "has no phases"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_file.decode(edited(**fields), "plan.json")


def test_a_plan_for_another_graph_is_refused_by_name() -> None:
    _, made, _ = planned()
    graph = mlp()
    with pytest.raises(PlanError, match=r"made for another graph \(\w{16}, tiny\); mlp is \w{16}") as caught:
        plans.require(made, graph)
    assert "unitp plan" in caught.value.hint


def test_all_damage_is_told_at_once() -> None:
    graph, made, _ = planned()
    node = next(n for n in graph.nodes if n.op == "MatMul").name
    parameters = {k: v for k, v in made.parameters.items() if k != "output_norm.weight"}
    parameters["blk.0.attn_q.weight"] = Layout((Split(("tp",), ((0, 5), (5, 9))), None))
    phase = msgspec.structs.replace(
        made.phases[0],
        nodes={node: {"q": Split(("tp",), ((0, 1), (1, 2)))}, "nowhere": {}},
        values={"logits": Layout(())},
    )
    damaged = msgspec.structs.replace(made, parameters=parameters, phases=(phase,))
    with pytest.raises(PlanError) as caught:
        plans.require(damaged, graph)
    text = str(caught.value)
    assert 'it has no layout for parameter "output_norm.weight"' in text
    assert "blk.0.attn_q.weight: tp[0:5 5:9] splits 9 rows, but there are 72" in text
    assert "logits has 3 dims, but its layout has 0" in text
    assert f'node {node} has no factor "q"' in text
    assert 'there is no node "nowhere"' in text


def test_paths_that_cannot_be_read_or_written_are_plan_errors(tmp_path: Path) -> None:
    _, made, _ = planned()
    with pytest.raises(PlanError, match=r"cannot read the plan .*: No such file"):
        plan_file.load(tmp_path / "absent.json")
    with pytest.raises(PlanError, match=r"cannot read the plan .*: it is a folder"):
        plan_file.load(tmp_path)
    with pytest.raises(PlanError, match=r"cannot write the plan .*: No such file"):
        plan_file.save(made, tmp_path / "absent" / "plan.json")


def test_a_phase_with_sizes_that_the_graph_does_not_have_is_refused() -> None:
    graph, made, _ = planned()
    phase = made.phases[0].phase
    strange = msgspec.structs.replace(phase, sizes=phase.sizes | {f"n{i}": 1 for i in range(100_000)})
    damaged = msgspec.structs.replace(made, phases=(msgspec.structs.replace(made.phases[0], phase=strange),))
    with pytest.raises(PlanError, match=r"gives sizes that tiny does not have: n0, n1, n2 and 99997 more\n") as raised:
        plans.require(damaged, graph)
    assert len(str(raised.value)) < 400


def test_default_phases_have_the_sizes_of_the_graph_alone() -> None:
    b = Builder("delay")
    x, old = b.input("x", "float32", (3,)), b.state("old", "float32", (3,))
    b.keep("old", b.Identity(x))
    graph = b.graph(b.Add(old, x))
    made = plan(Request(graph, Mesh()))
    assert [p.phase.name for p in made.phases] == ["prefill", "decode"]
    plans.require(made, graph)


def test_a_file_with_many_values_has_each_layout_once() -> None:
    _, _, data = planned()
    back = plan_file.decode(data)
    places = [at for p in back.phases for at in p.values.values()] + list(back.parameters.values())
    assert len({id(at) for at in places}) == len({repr(at) for at in places}) < len(places)


def test_a_plan_without_a_certificate_is_lowered_and_checked() -> None:
    graph, made, _ = planned()
    bare = Plan(made.graph, made.mesh, made.parameters, made.states, made.phases, made.model)
    assert certified(bare, made.certificate) == made
    plans.require(bare, graph)
    for phase in bare.phases:
        program = lower(graph, bare, phase.phase.name)
        check(program, graph)
        assert program == lower(graph, made, phase.phase.name)


def test_phases_are_completed_and_checked() -> None:
    model = tiny()
    made = unitp.plan(model, phases=[Phase("decode", {"batch": 1, "seq": 1, "cache": 64})])
    assert made.phases[0].phase.sizes == {"batch": 1, "seq": 1, "cache": 64, "live": 64, "take": 1, "candidates": 1}
    with pytest.raises(PlanError, match='a size for "weigth", which tiny does not have\nDid you mean "weight"'):
        unitp.plan(model, phases=[Phase("decode", {"batch": 1, "seq": 1, "cache": 64, "weigth": 2})])
    with pytest.raises(PlanError, match="phase decode gives no size for seq"):
        unitp.plan(model, phases=[Phase("decode", {"batch": 1, "cache": 64})])
    with pytest.raises(PlanError, match="two phases have the same name"):
        unitp.plan(model, phases=[Phase("a", {"batch": 1, "seq": 1, "cache": 64})] * 2)


def numbered(at: str, value: Any) -> bytes:
    """The plan's file with another value in one place."""
    file = json.loads(planned()[2])
    *path, last = at.split(".")
    place = file
    for key in path:
        place = place[int(key) if key.isdecimal() else key]
    place[last] = value
    return json.dumps(file).encode()


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        ("phases.0.sizes.batch", 0, "batch=0, which must be from 1 to 4294967296"),
        ("phases.0.sizes.batch", 2**64, "batch=18446744073709551616"),
        ("phases.0.weight", 1e300, "weight=1e[+]300"),
        ("phases.0.weight", -1.0, "weight=-1"),
        ("certificate.memory_limit", 10**50, "more than 40 digits"),
        ("mesh", {"tp=2,dp": 2}, "is not a name"),
        ("mesh", {"tp": 10**6}, "tp has size 1000000"),
        ("mesh", {"tp": 10**30}, "has size"),
        ("mesh", {f"a{i}": 1 for i in range(1000)}, "axes"),
    ],
)
def test_numbers_that_no_plan_has_are_refused(at: str, value: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        plan_file.decode(numbered(at, value))


def test_a_plan_is_json_that_all_read_alike() -> None:
    data = planned()[2].decode()
    for old, new in (
        ('"mesh"', '"model": "x", "mesh"'),
        ('"weight": 1.0', '"weight": 1e999'),
        ('"weight": 1.0', '"weight": NaN'),
    ):
        assert old in data
        with pytest.raises(PlanError, match="is not a plan: it is not JSON") as raised:
            plan_file.decode(data.replace(old, new, 1).encode())
        assert "unitp plan" in raised.value.hint


def test_sizes_of_phases_have_a_bound() -> None:
    for sizes, weight in (
        ({"batch": 2**64}, 1.0),
        ({"batch": 0}, 1.0),
        ({"batch": 1}, float("nan")),
        ({"batch": 1}, 1e300),
    ):
        with pytest.raises(PlanError, match="must be from"):
            unitp.plan(tiny(), phases=[Phase("x", {"seq": 1, "cache": 64} | sizes, weight)])
