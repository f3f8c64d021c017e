"""The verbs that tell of plans: pins, `explain`, `diff`, and the page that `show` draws."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from unitp import cli, plan_file


@pytest.fixture(scope="session")
def plan_files(folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A free plan of the small model, and one with a pin."""
    into = tmp_path_factory.mktemp("plans")
    files = []
    for name, pins in (
        ("free", []),
        ("pinned", ["--pin", "blk.*.ffn_down.weight: S(0)@tp", "--pin", "decode/add_*: R"]),
    ):
        files.append(str(into / f"{name}.json"))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            cli.main(["plan", folder, "--mesh", "tp=2", *pins, "-o", files[-1]])
    return files[0], files[1]


def test_pins_are_heeded_kept_and_shown(unitp: Any, folder: str, plan_files: tuple[str, str]) -> None:
    made = plan_file.load(plan_files[1])
    assert made.certificate.pins == ("blk.*.ffn_down.weight: S(0)@tp", "decode/add_*: R")
    assert unitp("plan", folder, "--mesh", "tp=2", "--pin", "blk.*: R", "--json").json["pins"] == ["blk.*: R"]
    shown = unitp("show", plan_files[1], "--model", folder)
    assert "pinned decode/add_*: R" in shown.out


@pytest.mark.parametrize(
    "pin, message",
    [
        ("blk.*.ffn_dwn.weight: R", "matches no tensor"),
        ("blk.0.ffn_down.weight: S(1)@tq", 'axis "tq" is not on the mesh'),
        ("blk.0.ffn_down.weight: x=S(0)@tp", "legal there: x=R; x=S(2)@tp"),
        ("blk.0.ffn_down.weight", "cannot read pin"),
    ],
)
def test_a_wrong_pin_is_an_error(unitp: Any, folder: str, pin: str, message: str) -> None:
    said = unitp("plan", folder, "--mesh", "tp=2", "--pin", pin)
    assert (said.code, said.out) == (2, "")
    assert message in said.err.replace("\n", " ")


def test_explain_tells_the_alternatives_of_a_place(unitp: Any, folder: str, plan_files: tuple[str, str]) -> None:
    said = unitp("explain", plan_files[0], "blk.*.ffn_down.weight", "--model", folder)
    assert said.code == 0
    assert "MatMul blk.*.ffn_down.weight in decode" in said.out
    assert "x=S(2)@tp, w=S(0)@tp, y=P@tp" in said.out
    told = unitp("explain", plan_files[0], "blk.*.ffn_down.weight", "--model", folder, "--json").json
    for place in told["places"]:
        chosen = [a for a in place["alternatives"] if a["chosen"]]
        assert [a["total_s"] for a in chosen] == [pytest.approx(told["objective_s"])]
        assert all(a["regret_s"] >= 0 for a in place["alternatives"])
    assert told["exact"]


def test_explain_without_a_name_tells_what_is_dear_and_what_is_contested(
    unitp: Any, folder: str, plan_files: tuple[str, str]
) -> None:
    said = unitp("explain", plan_files[1], "--model", folder)
    assert "Where a call spends most" in said.out
    assert "another comes nearest to" in said.out
    told = unitp("explain", plan_files[1], "--model", folder, "--json").json
    assert told["expensive"][0]["own_s"] > 0
    assert told["contested"][0]["regret_s"] > 0
    assert told["pins"] == ["blk.*.ffn_down.weight: S(0)@tp", "decode/add_*: R"]


def test_explain_wants_a_place_that_is_there_and_a_model_that_is_known(
    unitp: Any, folder: str, plan_files: tuple[str, str]
) -> None:
    said = unitp("explain", plan_files[0], "blk.0.ffn_dwn.weight", "--model", folder)
    assert said.code == 2
    assert "Did you mean" in said.err
    nameless = Path("nameless.json")
    nameless.write_text(
        Path(plan_files[0]).read_text().replace(json.loads(Path(plan_files[0]).read_text())["model"], "gone")
    )
    said = unitp("explain", str(nameless))
    assert (said.code, "--model MODEL" in said.err) == (2, True)


def test_diff_tells_what_differs(unitp: Any, folder: str, plan_files: tuple[str, str]) -> None:
    said = unitp("diff", *plan_files, "--model", folder)
    assert said.code == 0
    assert "blk.*.ffn_down.weight" in said.out
    assert "objective" in said.out
    told = unitp("diff", *plan_files, "--model", folder, "--json").json
    assert not told["same"]
    assert "parameter" in {c["kind"] for c in told["changes"]}
    assert told["moves"]
    assert unitp("diff", plan_files[0], plan_files[0], "--model", folder, "--json").json["same"]
    assert "The plans are the same." in unitp("diff", plan_files[0], plan_files[0], "--model", folder).out


def test_show_draws_a_page(unitp: Any, folder: str, plan_files: tuple[str, str]) -> None:
    said = unitp("show", plan_files[0], "--model", folder, "--html", "plan.html")
    assert said.code == 0
    assert "drawn in plan.html" in said.out
    assert Path("plan.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert unitp("show", plan_files[0], "--model", folder, "--html", "plan.html", "--json").json["html"] == "plan.html"
    assert "there is no folder" in unitp("show", plan_files[0], "--model", folder, "--html", "absent/plan.html").err


def test_a_plan_remembers_how_weights_are_stored(
    unitp: Any, folder: str, plan_files: tuple[str, str], tmp_path: Path
) -> None:
    path = str(tmp_path / "narrow.json")
    assert unitp("plan", folder, "--mesh", "tp=2", "--weights", "bfloat16", "-o", path).code == 0
    assert plan_file.load(path).graph != plan_file.load(plan_files[0]).graph
    assert "bf16[" in unitp("program", path, "--model", folder).out
    assert unitp("show", path, "--model", folder, "--html", str(tmp_path / "narrow.html")).code == 0
    for file, weights, kept in ((path, "float16", "bfloat16"), (plan_files[0], "bfloat16", "float32")):
        said = unitp("generate", folder, "--plan", file, "--weights", weights, "--prompt-ids", "1")
        assert (said.code, said.out) == (2, "")
        assert f"is for weights in {kept}, --weights is {weights}\nLeave out --weights." in said.err
