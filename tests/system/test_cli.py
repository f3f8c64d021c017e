"""The command line on real ranks of a small model: what is streamed, printed, written and left with."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.testing.models import TINY

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

SMOLLM = "smollm2-135m"
STRANGERS = Path(__file__).parents[1] / "fakes" / "strangers"
FAKES = Path(__file__).parents[1] / "fakes"


def run(*arguments: object, code: int = 0, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`unitp ARGUMENTS` in a process of its own; `given` goes to its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "unitp", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def run_json(*arguments: object, code: int = 0, given: str = "", **environment: str) -> dict[str, Any]:
    """Standard output as the one JSON object that it is."""
    done = run(*arguments, "--json", code=code, given=given, **environment)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


IDS = "5,17,3,88,41"


# generate


@pytest.fixture(scope="session")
def greedy(tmp_path_factory: pytest.TempPathFactory, folder: str) -> list[int]:
    """The tokens after IDS, on one rank."""
    return list(run_json("generate", folder, "--prompt-ids", IDS, "--max-new-tokens", 12, "--ignore-eos")["tokens"])


@pytest.mark.parametrize("backend, mesh", [("numpy", "tp=2"), ("torch", "tp=1"), ("torch", "tp=2")])
def test_generate_gives_the_same_tokens_everywhere(folder: str, greedy: list[int], backend: str, mesh: str) -> None:
    arguments = ["--prompt-ids", IDS, "--max-new-tokens", 12, "--ignore-eos", "--backend", backend, "--mesh", mesh]
    found = run_json("generate", folder, *arguments)
    assert found["prompt_ids"] == [5, 17, 3, 88, 41]
    assert found["tokens"] == greedy
    assert found["finish_reason"] == "length"
    assert found["prefill_tokens_per_s"] > 0
    assert found["decode_tokens_per_s"] > 0


def test_a_plan_file_serves_instead_of_a_mesh(folder: str, greedy: list[int], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", folder, "--mesh", "tp=2", "-o", file)
    for more in ([], ["--mesh", "tp=2"]):
        found = run_json("generate", folder, "--plan", file, "--prompt-ids", IDS, "--max-new-tokens", 4, *more)
        assert found["tokens"] == greedy[:4]


def test_text_is_streamed_and_progress_goes_to_standard_error(talking: str) -> None:
    arguments = ["generate", talking, "--prompt", "ab", "--max-new-tokens", "300", "--ignore-eos"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unitp", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1 << 16)
    rest, errors = process.communicate()
    assert process.returncode == 0
    assert first
    assert len(first) < len(first + rest) / 2
    lines = errors.decode().splitlines()
    assert lines[0] == "starting 1 rank of numpy"
    assert lines[-1].startswith("300 tokens (length), prefill ")
    whole = run_json(*arguments)
    assert (first + rest).decode() == whole["text"] + "\n"


def test_several_prompts_are_a_batch(talking: str) -> None:
    one = [run_json("generate", talking, "--prompt", p, "--max-new-tokens", 5, "--ignore-eos") for p in ("ab", "hello")]
    arguments = ["generate", talking, "--prompt", "ab", "--prompt", "hello", "--max-new-tokens", 5, "--ignore-eos"]
    both = run_json(*arguments, "--mesh", "dp=2")["results"]
    assert [r["tokens"] for r in both] == [r["tokens"] for r in one]
    text = run(*arguments).stdout
    assert text == "".join(f"> {p}\n{r['text']}\n" for p, r in zip(("ab", "hello"), one, strict=True))


def test_stop_text_ends_it_and_is_not_shown(talking: str) -> None:
    arguments = ["generate", talking, "--prompt", "ab", "--max-new-tokens", 60, "--ignore-eos"]
    whole = run_json(*arguments)["text"]
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isascii())
    found = run_json(*arguments, "--stop", stop, "--stop", "it never says so much")
    assert found["finish_reason"] == "stop"
    assert found["text"] == whole[: whole.index(stop)]
    assert len(found["tokens"]) < 60


def test_the_stop_token_is_in_the_tokens_and_not_in_the_text(talking: str) -> None:
    """The model is asked until it says its stop token: sampling makes it do so soon."""
    arguments = ["generate", talking, "--prompt", "ab", "--max-new-tokens", 490, "--temperature", 3, "--seed", 1]
    found = run_json(*arguments)
    assert found["finish_reason"] == "stop"
    assert found["tokens"][-1] == 256
    assert 256 not in found["tokens"][:-1]
    assert "<end>" not in found["text"]
    more = run_json(*arguments, "--ignore-eos")
    assert more["tokens"][: len(found["tokens"])] == found["tokens"]
    assert len(more["tokens"]) == 490


def test_chat_puts_the_prompt_into_the_template(talking: str) -> None:
    found = run_json("generate", talking, "--chat", "--system", "Be", "--prompt", "Hi", "--max-new-tokens", 3)
    plain = run_json("generate", talking, "--prompt", "system: Be\nuser: Hi\nassistant: ", "--max-new-tokens", 3)
    assert found["prompt_ids"] == plain["prompt_ids"]
    assert found["tokens"] == plain["tokens"]


def test_one_seed_draws_one_text_on_every_backend(folder: str) -> None:
    drawn = ["--temperature", 1, "--top-k", 40, "--top-p", 0.95]
    arguments = ["generate", folder, "--prompt-ids", IDS, "--max-new-tokens", 12, *drawn]
    first = run_json(*arguments, "--seed", 7)["tokens"]
    assert run_json(*arguments, "--seed", 7, "--backend", "torch", "--mesh", "tp=2")["tokens"] == first
    assert run_json(*arguments, "--seed", 8)["tokens"] != first


def test_a_full_context_ends_with_length(folder: str, greedy: list[int]) -> None:
    found = run_json("generate", folder, "--prompt-ids", IDS, "--context", 9, "--max-new-tokens", 50)
    assert found["tokens"] == greedy[:4]
    assert found["finish_reason"] == "length"
    full = run_json("generate", folder, "--prompt-ids", IDS, "--context", 5)
    assert (full["tokens"], full["finish_reason"]) == ([], "length")
    said = run("generate", folder, "--prompt-ids", IDS, "--context", 4, code=2)
    assert "5 tokens do not fit into a context of 4" in said.stderr
    assert "starting 1 rank" not in said.stderr


def test_a_model_without_a_tokenizer_shows_token_ids(folder: str, greedy: list[int]) -> None:
    said = run("generate", folder, "--prompt-ids", IDS, "--max-new-tokens", 4)
    assert [int(t) for t in said.stdout.replace(",", " ").split()] == greedy[:4]
    refused = run("generate", folder, "--prompt", "text", code=2)
    assert "has no tokenizer" in refused.stderr
    assert "--prompt-ids" in refused.stderr


def test_a_real_model_knows_the_capital_of_france() -> None:
    """The first tokens of llama.cpp for the same weights."""
    prompt = "The capital of France is"
    found = run_json("generate", SMOLLM, "--prompt", prompt, "--mesh", "tp=2", "--max-new-tokens", 4)
    assert found["prompt_ids"] == [504, 3575, 282, 4649, 314]
    assert found["text"] == " Paris.\n\n"
    ids = run("generate", SMOLLM, "--prompt-ids", "504,3575,282,4649,314", "--max-new-tokens", 2)
    assert ids.stdout == " Paris.\n"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_prompt_of_one_token_and_a_plan_for_a_larger_batch(folder: str, tmp_path: Path, backend: str) -> None:
    """What the plan splits over the batch has fewer rows than ranks."""
    file = tmp_path / "plan.json"
    sizes = "batch=4,cache=512,live=512"
    run(
        "plan",
        folder,
        "--mesh",
        "tp=2",
        "--phase",
        f"prefill:{sizes},seq=64",
        "--phase",
        f"decode:{sizes},seq=1",
        "-o",
        file,
    )
    assert "[even]" in file.read_text()
    arguments = ["--prompt-ids", "5", "--max-new-tokens", 6, "--ignore-eos"]
    wanted = run_json("generate", folder, *arguments)["tokens"]
    assert run_json("generate", folder, *arguments, "--plan", file, "--backend", backend)["tokens"] == wanted


# chat


def test_chat_keeps_the_caches_between_turns(talking: str) -> None:
    turns = run_json("chat", talking, "--max-new-tokens", 4, "--mesh", "tp=2", given="Hi\nWho?\n\nnot read\n")["turns"]
    assert [t["question"] for t in turns] == ["Hi", "Who?"]
    first, second = turns
    assert first["computed_tokens"] == len(first["prompt_ids"])
    held = first["prompt_ids"] + first["tokens"][:-1]  # the last token was never fed
    pairs = zip(held, second["prompt_ids"], strict=False)
    same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    assert same >= len(first["prompt_ids"])
    assert second["computed_tokens"] == len(second["prompt_ids"]) - same
    alone = run_json(
        "generate", talking, "--prompt-ids", ",".join(map(str, second["prompt_ids"])), "--max-new-tokens", 4
    )
    assert alone["tokens"] == second["tokens"]


def test_chat_with_questions_of_one_character(talking: str) -> None:
    template = ["--max-new-tokens", 1, "--mesh", "tp=2"]
    turns = run_json("chat", talking, *template, given="a\nb\nc\n")["turns"]
    for turn in turns:
        ids = ",".join(map(str, turn["prompt_ids"]))
        alone = run_json("generate", talking, "--prompt-ids", ids, "--max-new-tokens", 1)
        assert turn["tokens"] == alone["tokens"]


def test_chat_prints_answers_as_lines(talking: str) -> None:
    turns = run_json("chat", talking, "--max-new-tokens", 4, "--system", "Be", given="Hi\nWho?\n")["turns"]
    said = run("chat", talking, "--max-new-tokens", 4, "--system", "Be", given="Hi\nWho?\n")
    assert said.stdout == "".join(f"{t['text']}\n" for t in turns)


# run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_run_takes_npy_and_npz_and_writes_npz(folder: str, tmp_path: Path, dtype: str) -> None:
    ids = np.array([[5, 17, 3], [1, 2, 3]])
    np.save(tmp_path / "ids.npy", ids)
    np.savez(tmp_path / "in.npz", input_ids=ids)
    common = ["run", folder, "--dtype", dtype, "--mesh", "tp=2"]
    found = run_json(*common, "--input", f"input_ids={tmp_path}/ids.npy", "-o", tmp_path / "a.npz")
    assert found["arrays"] == {"logits": {"dtype": dtype, "shape": [2, 3, TINY.vocab]}}
    said = run(*common, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "exactly")
    assert said.stdout == f"logits: {dtype}[2, 3, {TINY.vocab}]\n"
    with np.load(tmp_path / "a.npz") as first, np.load(tmp_path / "exactly") as second:
        assert first.files == second.files == ["logits"]
        assert first["logits"].dtype == dtype
        assert np.array_equal(first["logits"], second["logits"])


@pytest.mark.parametrize(
    "array, message",
    [
        (np.array([5, 17]), "input_ids has 1 dims [2] but must have 2"),
        (np.array([[0.5]]), "token ids are float64 with 2 dims"),
        (np.array([[5, 999]]), "token 999 is not from 0 to 256"),
        (np.zeros((1, 600), np.int64), "600 tokens do not fit into a context of 512"),
    ],
)
def test_run_refuses_what_cannot_be_run(folder: str, tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "ids.npy", array)
    said = run("run", folder, "--input", f"input_ids={tmp_path}/ids.npy", "-o", tmp_path / "out.npz", code=2)
    assert message in said.stderr
    assert "starting 1 rank" not in said.stderr
    assert not (tmp_path / "out.npz").exists()


def test_run_refuses_damaged_files(folder: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", input_ids=np.array([[1]]))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-30])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for flag, name, message in (
        ("--inputs", "cut.npz", "cannot read arrays from"),
        ("--input", "input_ids=objects.npy", "holds Python objects, which are not read"),
        ("--input", "input_ids=text.npy", "cannot read arrays from"),
    ):
        path = name.replace("=", f"={tmp_path}/") if "=" in name else f"{tmp_path}/{name}"
        said = run("run", folder, flag, path, "-o", tmp_path / "out.npz", code=2)
        assert message in said.stderr
    said = run("run", folder, "--input", f"input_id={tmp_path}/good.npz", "-o", tmp_path / "out.npz", code=2)
    assert "is an archive, not one array" in said.stderr


# compare, bench, demo


def test_backends_that_agree_leave_with_0(folder: str) -> None:
    arguments = ["compare", folder, "--backend", "numpy", "--backend", "torch", "--mesh", "tp=2", "--prompt-ids", IDS]
    found = run_json(*arguments, "--max-new-tokens", 6)
    assert found["agree"] is True
    assert list(found["backends"]) == ["numpy", "torch"]
    for verdict in found["backends"].values():
        assert verdict["verdict"] == "agrees"
        assert verdict["tokens_equal"] is True
        assert 0 < verdict["relative_error"] <= verdict["bound"] < 1e-5
        assert verdict["max_abs_error"] > 0
        assert len(verdict["tokens"][0]) == 6


def test_a_backend_that_is_a_little_wrong_leaves_with_1(folder: str) -> None:
    arguments = [
        "compare",
        folder,
        "--backend",
        "skewed",
        "--backend",
        "numpy",
        "--prompt-ids",
        IDS,
        "--max-new-tokens",
        6,
    ]
    found = run_json(*arguments, code=1, PYTHONPATH=str(STRANGERS))
    assert found["agree"] is False
    skewed, right = found["backends"]["skewed"], found["backends"]["numpy"]
    assert (skewed["verdict"], right["verdict"]) == ("disagrees", "agrees")
    assert skewed["relative_error"] == pytest.approx(1e-3, rel=1e-3)
    assert skewed["tokens_equal"] is True  # a thousandth too much of every logit changes no choice
    assert "logits has error 1.0e-03" in skewed["reasons"][0]
    said = run(*arguments, code=1, PYTHONPATH=str(STRANGERS))
    assert ["skewed", "one", "process", "disagrees", "equal", "1.0e-03"] in [
        s.split()[:6] for s in said.stdout.splitlines()
    ]


def test_bench_tells_speed_time_bytes_and_memory(folder: str) -> None:
    arguments = ["bench", folder, "--mesh", "tp=2", "--prompt-tokens", 20, "--new-tokens", 5]
    found = run_json(*arguments)
    assert (found["backend"], found["mesh"], found["new_tokens"]) == ("numpy", "tp=2", 5)
    assert found["prompt_tokens"] == 20
    for key in (
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "collective_s",
        "compute_s",
        "collectives",
        "collective_bytes",
    ):
        assert found[key] > 0, key
    assert found["seconds"] == pytest.approx(found["collective_s"] + found["compute_s"])
    assert [m["rank"] for m in found["memory"]] == [0, 1]
    assert all(m["predicted"] > 0 for m in found["memory"])


def test_demo_shows_plan_text_and_verdict(talking: str) -> None:
    said = run("demo", "--model", talking, "--backend", "numpy", "--max-new-tokens", 4)
    assert "on 2 ranks, gap " in said.stdout
    assert "numpy: The capital of France is" in said.stdout
    assert ["numpy", "mpi", "agrees", "equal"] in [line.split()[:4] for line in said.stdout.splitlines()]
    found = run_json("demo", "--model", talking, "--backend", "numpy", "--max-new-tokens", 4)
    assert found["backends"]["numpy"]["verdict"] == "agrees"


# doctor


def test_doctor_starts_two_ranks_of_a_healthy_backend() -> None:
    found = run_json("doctor", "--backend", "numpy", "--backend", "torch")
    assert found["ok"] is True
    assert [b["backend"] for b in found["backends"]] == ["numpy", "torch"]
    assert all(b["state"] == "ok" and "2 ranks summed a number" in b["why"] for b in found["backends"])
    assert found["backends"][0]["versions"]["numpy"] == np.__version__
    assert found["models"] == [{"model": SMOLLM, "state": "ok", "mend": ""}]


def test_doctor_tells_the_command_that_mends_what_is_missing_or_broken() -> None:
    found = run_json("doctor", "--no-start", code=1, PYTHONPATH=str(STRANGERS))
    rows = {row["backend"]: row for row in found["backends"]}
    assert found["ok"] is False
    assert rows["numpy"]["state"] == rows["torch"]["state"] == "ok"
    assert (rows["absent"]["state"], rows["absent"]["mend"]) == ("missing", "pip install strange-framework==2.1")
    assert (rows["broken"]["state"], rows["broken"]["mend"]) == (
        "broken",
        "pip install --force-reinstall unitp-strange",
    )
    assert rows["broken"]["why"] == "ImportError: libstrange.so.1: cannot open shared object file"
    assert (rows["newer"]["state"], rows["newer"]["mend"]) == ("broken", "pip install --upgrade unitp unitp-newer")
    assert {name: bool(row["notice"]) for name, row in rows.items() if row["state"] == "ok"} == {
        "mxnet": True, "numpy": False, "skewed": False, "tensorflow": False, "torch": False
    }  # fmt: skip
    text = run("doctor", "--no-start", code=1, PYTHONPATH=str(STRANGERS)).stdout
    assert "absent: run pip install strange-framework==2.1\n" in text
    assert "newer: run pip install --upgrade unitp unitp-newer\n" in text
    assert text.count("Apache retired MXNet in 2023") == 1


def test_doctor_looks_into_the_interpreter_of_a_backend(tmp_path: Path) -> None:
    (tmp_path / "unitp").mkdir()
    (tmp_path / "unitp" / "unitp.toml").write_text('[backends.numpy]\npython = "/nowhere/python"\n')
    found = run_json("doctor", "--backend", "numpy", code=1, XDG_CONFIG_HOME=str(tmp_path))
    assert found["backends"][0]["state"] == "fails"
    assert "/nowhere/python cannot be asked" in found["backends"][0]["why"]


# faults and bad input


def test_a_missing_framework_comes_with_the_command(folder: str) -> None:
    said = run(
        "generate", folder, "--backend", "absent", "--prompt-ids", IDS, code=2, PYTHONPATH=str(STRANGERS)
    )  # fmt: skip
    assert said.stderr == (
        "Error: backend absent needs strange-framework>=2 (not installed)\nRun: pip install strange-framework==2.1\n"
    )
    broken = run("generate", folder, "--backend", "broken", "--prompt-ids", IDS, code=2, PYTHONPATH=str(STRANGERS))
    assert "cannot be loaded: ImportError: libstrange.so.1" in broken.stderr


@pytest.mark.parametrize(
    "damaged, length, message",
    [
        ("model.safetensors", 20, "model.safetensors"),
        ("model.safetensors", 60_000, "model.safetensors"),
        ("config.json", 30, "config.json"),
        ("tokenizer.json", 100, "tokenizer.json"),
    ],
)
def test_a_model_with_a_truncated_file_is_refused(
    talking: str, tmp_path: Path, damaged: str, length: int, message: str
) -> None:
    at = Path(shutil.copytree(talking, tmp_path / "damaged"))
    (at / damaged).write_bytes((at / damaged).read_bytes()[:length])
    said = run("generate", at, "--prompt", "ab", code=2)
    assert message in said.stderr
    assert "starting 1 rank" not in said.stderr


def test_a_truncated_gguf_file_is_refused(tmp_path: Path) -> None:
    path = run_json("models")["models"][0]["path"]
    for length in (0, 3, 30, 5_000_000):
        with open(path, "rb") as file:
            (tmp_path / "cut.gguf").write_bytes(file.read(length))
        said = run("generate", tmp_path / "cut.gguf", "--prompt", "ab", code=2)
        assert "cut.gguf is " in said.stderr
        assert "starting 1 rank" not in said.stderr


def test_a_named_port_that_is_in_use_is_refused(folder: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        two = ("--backend", "torch", "--mesh", "tp=2", "--isolation", "off")
        said = run("generate", folder, *two, "--port", port, "--prompt-ids", IDS, code=2)
    assert f"port {port} is in use" in said.stderr


def test_a_fault_of_a_rank_leaves_with_3(folder: str, tmp_path: Path) -> None:
    info = tmp_path / "unitp_fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unitp-fake\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unitp]\nfake = unitp_fake\n")
    path = os.pathsep.join([str(FAKES), str(tmp_path)])
    common = ["generate", folder, "--backend", "fake", "--mesh", "tp=2", "--prompt-ids", IDS]
    said = run(*common, "-v", code=3, PYTHONPATH=path, FAKE="1:run:raise")
    assert "Error: rank 1 raised ZeroDivisionError" in said.stderr
    assert "instruction 1, " in said.stderr
    assert "division by zero" in said.stderr
    assert "[rank1] rank 1 joins" in said.stderr
    assert said.stdout == ""


def test_ctrl_c_leaves_with_130_and_nothing_behind(talking: str) -> None:
    arguments = ["--prompt", "ab", "--ignore-eos", "--max-new-tokens", "500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unitp", "generate", talking, "--mesh", "tp=2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 130
    assert b"Traceback" not in errors
