"""What cannot be read or done is refused with a message of our own, and nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unitp import api
from unitp.cli.options import parse_mesh, parse_phase
from unitp.errors import InputError, MeshError
from unitp.frontends.builder import Builder
from unitp.plans import Phase

SMOLLM = "smollm2-135m"


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
        (
            ["generate", SMOLLM, "--prompt", "x", "--weights", "bfloat6"],
            '--weights: weights is "bfloat6"\nDid you mean "bfloat16"?',
        ),
        (["plan", SMOLLM, "--weights", "int8"], '--weights: weights is "int8"'),
        (
            ["generate", SMOLLM, "--prompt", "x", "--weights", "bfloat16", "--backend", "torch"],
            "backend torch does not hold weights in bfloat16\nPlan with --weights float32, or take backend numpy.",
        ),
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
    assert "devices.cpu.operator_s must be a number of seconds that is not negative, but it is -1." in said.err
    assert "devices.cpu.flops_per_s is missing" in said.err
    assert "link is missing; it must be a table." in said.err


def test_trace_needs_a_place_to_write_to(unitp: Any) -> None:
    assert "Missing option" in unitp("trace", SMOLLM).err
    assert "it is a folder" in unitp("trace", SMOLLM, "-o", ".").err
