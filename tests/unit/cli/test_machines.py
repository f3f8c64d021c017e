"""Machines on the command line, in plans, and in what is told of plans; axes that a plan leaves unused."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

import unitp as package
from unitp import cli, plan_file
from unitp.cost import Device, Link, Machine, Pair
from unitp.cost.machine_file import load_machine, profiles
from unitp.cost.record import planned_machine, record
from unitp.errors import InputError, MeshError, PlanError
from unitp.explain.alternatives import Alternatives
from unitp.explain.description import describe, devices_text, repriced
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.report import html
from unitp.testing.models import EAGER_TO_SPLIT, tiny

TWO = """
name = "two boxes"
ranks = ["slow", "fast"]

[devices.slow]
flops_per_s = { float32 = 1e9 }
memory_bytes_per_s = 1e8
memory = "8GiB"
operator_s = 0.0

[devices.fast]
flops_per_s = { float32 = 2e9 }
memory_bytes_per_s = 2e8
operator_s = 0.0

[link]
latency_s = 0.0
bytes_per_s = 1e12
call_s = 0.0
"""


@pytest.fixture
def unitp(unitp: Any) -> Any:
    """The command, in a folder that has the file of a machine."""
    Path("two.toml").write_text(TWO)
    return unitp


@pytest.fixture(scope="session")
def files(folder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A plan for two unlike boxes, and one for the default machine."""
    into = tmp_path_factory.mktemp("plans")
    (into / "two.toml").write_text(TWO)
    found = {"two": str(into / "two.json"), "default": str(into / "default.json")}
    for name, more in (("two", ["--machine", str(into / "two.toml")]), ("default", [])):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            cli.main(["plan", folder, "--mesh", "tp=2", *more, "-o", found[name]])
    return found


def test_a_plan_names_its_machine_and_the_device_of_each_rank(unitp: Any, folder: str) -> None:
    said = unitp("plan", folder, "--mesh", "tp=2", "--machine", "two.toml", "-o", "p.json")
    assert said.code == 0, said.err
    assert "machine two boxes (slow: rank 0; fast: rank 1)" in said.out
    (up,) = {plan_file.load("p.json").parameters[f"blk.{n}.ffn_up.weight"].dims[0] for n in range(2)}
    assert str(up) == "tp[0:33 33:100]", "a third of the rows, and two"
    told = unitp("plan", folder, "--mesh", "tp=2", "--machine", "two.toml", "--json").json
    assert told["machine"] == load_machine("two.toml").hash
    assert told["priced_on"]["ranks"] == ["slow", "fast"]


def test_a_profile_is_a_machine_too_and_so_is_the_setting(
    unitp: Any, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "machine h100-nvlink" in unitp("plan", folder, "--mesh", "tp=2", "--machine", "h100-nvlink").out
    monkeypatch.setenv("UNITP_MACHINE", "a100-nvlink")
    assert "machine a100-nvlink" in unitp("plan", folder, "--mesh", "tp=2").out
    monkeypatch.delenv("UNITP_MACHINE")
    Path("unitp.toml").write_text('machine = "two.toml"')
    assert "machine two boxes" in unitp("plan", folder, "--mesh", "tp=2").out


@pytest.mark.parametrize(
    "mesh, machine, messages",
    [
        ("tp=2", "absent.toml", ['there is no machine "absent.toml"']),
        ("tp=2", "h10-nvlink", ['Did you mean "h100-nvlink"?']),
        ("tp=3", "two.toml", ["does not fit the mesh tp=3", "it has 2 ranks, the mesh has 3"]),
        (
            "tp=2",
            "bad.toml",
            [
                "devices.a.memory_bytes_per_s must be a positive number of bytes per second, but it is -1.",
                "link.call_s is missing",
                "speed is not a known entry",
            ],
        ),
        ("tp=2", "none.toml", ["is not TOML"]),
        ("tp=2", ".", ["cannot read the machine"]),
    ],
)
def test_a_wrong_machine_is_an_error_with_all_that_is_wrong(
    unitp: Any, folder: str, mesh: str, machine: str, messages: list[str]
) -> None:
    Path("bad.toml").write_text(
        "speed = 1\n[devices.a]\nflops_per_s = { float32 = 1e9 }\nmemory_bytes_per_s = -1\noperator_s = 0\n"
        "[link]\nlatency_s = 0\nbytes_per_s = 1\n"
    )
    Path("none.toml").write_text("[[")
    said = unitp("plan", folder, "--mesh", mesh, "--machine", machine, "-o", "p.json")
    assert (said.code, said.out) == (2, "")
    assert all(message in said.err for message in messages), said.err
    assert not Path("p.json").exists()


def test_machines_lists_profiles_and_reads_files(unitp: Any) -> None:
    assert all(name in unitp("machines").out for name in profiles())
    told = unitp("machines", "--json").json["machines"]
    assert [m["name"] for m in told] == profiles()
    said = unitp("machines", "two.toml", "h100-nvlink")
    assert "two boxes, 2 ranks" in said.out
    assert "fast (ranks 1)" in said.out
    assert "3.35 TB/s" in said.out
    wrong = unitp("machines", "two.toml", "absent.toml", "gone.toml")
    assert wrong.code == 2
    assert all(name in wrong.err for name in ("absent.toml", "gone.toml"))


def test_show_and_explain_price_on_the_plans_own_machine_or_another(
    unitp: Any, folder: str, files: dict[str, str]
) -> None:
    own = unitp("show", files["two"], "--model", folder)
    assert "machine two boxes (slow: rank 0; fast: rank 1)" in own.out
    other = unitp("show", files["two"], "--model", folder, "--machine", "h100-nvlink")
    assert "machine h100-nvlink" in other.out
    assert "the plan was made for machine" in other.out
    told = unitp("explain", files["two"], "--model", folder, "--json").json
    assert told["same_prices"]
    assert told["objective_s"] == pytest.approx(plan_file.load(files["two"]).certificate.objective_s)
    elsewhere = unitp("explain", files["two"], "--model", folder, "--machine", "h100-nvlink", "--json").json
    assert not elsewhere["same_prices"]
    assert elsewhere["objective_s"] < told["objective_s"]
    assert unitp("show", files["two"], "--model", folder, "--html", "p.html", "--machine", "two.toml").code == 0
    page = Path("p.html").read_text("utf-8")
    assert "on machine two boxes" in page
    assert "(slow: rank 0; fast: rank 1)" in page
    for verb in (("show", files["default"]), ("explain", files["default"]), ("diff", files["default"], files["two"])):
        Path("three.toml").write_text(TWO.replace('"slow", "fast"]', '"slow", "fast", "fast"]'))
        said = unitp(*verb, "--model", folder, "--machine", "three.toml")
        assert (said.code, said.out) == (2, ""), verb
        assert "it has 3 ranks, the mesh has 2" in said.err


def test_diff_prices_both_plans_on_one_machine(unitp: Any, folder: str, files: dict[str, str]) -> None:
    apart = unitp("diff", files["default"], files["two"], "--model", folder, "--json").json
    assert any("different machines" in note for note in apart["notes"])
    one = unitp("diff", files["default"], files["two"], "--model", folder, "--machine", "two.toml", "--json").json
    assert not any("different machines" in note for note in one["notes"])
    objective = next(row for row in one["seconds"] if row["what"] == "objective")
    assert objective["b"] == pytest.approx(plan_file.load(files["two"]).certificate.objective_s, rel=1e-3)
    assert objective["b"] < objective["a"], "the plan for these two is better on them"


def test_python_takes_a_machine_by_value_by_name_and_by_file(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(TWO)
    model, mesh = tiny(), Mesh(tp=2)
    by_file = package.plan(model, mesh, machine=tmp_path / "two.toml")
    by_value = package.plan(model, mesh, machine=load_machine(tmp_path / "two.toml"))
    assert by_file.parameters == by_value.parameters
    assert package.plan(model, mesh, machine="h100-nvlink").certificate.machine == load_machine("h100-nvlink").hash
    with pytest.raises(MeshError, match="it has 2 ranks, the mesh has 3"):
        package.plan(model, Mesh(tp=3), machine=tmp_path / "two.toml")
    with pytest.raises(InputError, match="there is no machine"):
        package.plan(model, mesh, machine="h1")


MACHINES = [
    Machine(),
    EAGER_TO_SPLIT,
    load_machine("h100-nvlink"),
    Machine(
        devices={
            "a": Device({"float32": 1.5e11, "float64": 1e10}, 1 / 3, 0.0, 7e9),
            "b": Device({"float32": 1e9}, 2e9, 1e-6),
        },
        ranks=("a", "b"),
        axes={"tp": Link(1e-6, 2e9, 3e-6)},
        pairs=(Pair((0, 1), Link(1e-6, 2e9, 3e-6)),),
        network=Link(1e-5, 2e8, 3e-5),
        ranks_per_node=1,
    ),
]


@pytest.mark.parametrize("machine", MACHINES, ids=["default", "eager", "profile", "unlike"])
def test_a_plan_keeps_its_machine(machine: Machine, tmp_path: Path) -> None:
    made = plan_graph(Request(tiny().graph, Mesh(tp=2), machine=machine))
    plan_file.save(made, tmp_path / "plan.json")
    kept = planned_machine(plan_file.load(tmp_path / "plan.json"))
    assert kept == machine
    assert kept.hash == machine.hash == made.certificate.machine
    assert record(Machine()) == {}
    assert Alternatives(made, tiny().graph).same_prices


@pytest.mark.parametrize(
    "change",
    [{"ranks": ["a"]}, {"ranks": ["a", "c"]}, {"devices": {"a": {}}}, {"link_bytes_per_s": -1.0}, {"call_s": "x"}],
)
def test_a_damaged_machine_in_a_plan_is_an_error(change: dict[str, object]) -> None:
    made = plan_graph(Request(tiny().graph, Mesh(tp=2), machine=MACHINES[3]))
    kept = {**made.certificate.priced_on, **change}
    damaged = msgspec.structs.replace(made, certificate=msgspec.structs.replace(made.certificate, priced_on=kept))
    with pytest.raises((PlanError, MeshError)):
        planned_machine(damaged)


def test_ranks_of_a_class_are_told_in_runs() -> None:
    assert devices_text({"fast": [0, 1, 2, 5], "slow": [3]}) == "fast: ranks 0-2, 5; slow: rank 3"


def test_an_unused_axis_is_told_with_both_times(unitp: Any, folder: str) -> None:
    slow_links = Machine(call_s=0.1)
    made = plan_graph(Request(tiny().graph, Mesh(tp=2), machine=slow_links))
    (idle,) = made.certificate.unused
    assert (idle.axis, idle.phases) == ("tp", ("prefill", "decode"))
    assert idle.objective_s > made.certificate.objective_s
    assert idle.seconds["decode"] > made.phase("decode").seconds
    assert "Axis tp is left unused by prefill and decode" in html.page(made, tiny().graph)
    used = plan_graph(Request(tiny().graph, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    assert used.certificate.unused == ()
    said = unitp("plan", folder, "--mesh", "tp=2")
    assert "tp is left unused by decode, which is faster" in said.out
    told = unitp("plan", folder, "--mesh", "tp=2", "--json").json
    assert told["unused"][0]["objective_s"] > told["objective_s"]


def test_explaining_a_plan_finds_the_same_plan_that_uses_the_axis() -> None:
    graph, machine = tiny().graph, Machine(call_s=0.1)
    (idle,) = plan_graph(Request(graph, Mesh(tp=2), machine=machine)).certificate.unused
    again = Alternatives(plan_graph(Request(graph, Mesh(tp=2), machine=machine)), graph, machine)
    (same,) = again.left_whole()
    assert same.objective_s == pytest.approx(idle.objective_s)
    assert same.seconds == pytest.approx(idle.seconds)


def test_products_that_are_left_whole_are_listed() -> None:
    pins = ["blk.*.ffn_*.weight: x=R, y=R"]
    graph = tiny().graph
    made = plan_graph(Request(graph, Mesh(tp=2), machine=EAGER_TO_SPLIT, pins=pins))
    rows = [row for row in describe(made, graph).whole if "ffn" in row.what]
    assert {row.what for row in rows} == {f"MatMul blk.*.ffn_{part}.weight" for part in ("down", "gate", "up")}
    assert all((row.count, row.axis) == (2, "tp") for row in rows)


def test_repricing_on_the_same_machine_changes_nothing() -> None:
    graph = tiny().graph
    made = plan_graph(Request(graph, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    again = repriced(made, graph, EAGER_TO_SPLIT)
    assert again.certificate.objective_s == pytest.approx(made.certificate.objective_s, rel=1e-3)
    assert [p.seconds for p in again.phases] == pytest.approx([p.seconds for p in made.phases], rel=1e-3)
