"""Command lines as somebody types them who wants to see what happens. Nothing is started: where ranks would be, it ends.

A command without harm has to print what it should. Whatever else is given, it ends with an exit code and words, without a traceback
and without anything that a terminal would obey.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hostile import SPINNER, harmless
from mutations import NUMBERS, name

from unitp import cli
from unitp.errors import InputError
from unitp.session import launch
from unitp.testing.models import SMALL, write_huggingface

NAME = "command line"
STARTED = "ranks would be started here"
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
"""The user's own: before it starts ranks, NumPy's backend compiles kernels into it, once for a processor."""
MACHINE = """
[devices.cpu]
flops_per_s = { float32 = 1e11 }
memory_bytes_per_s = 2e10
operator_s = 5e-6
[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
"""


@dataclass(frozen=True)
class Input:
    """`right`: keys and values of the JSON that has to be printed."""

    words: tuple[str, ...]
    folder: Path
    right: dict[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def harmless(self) -> bool:
        return self.right is not None


class StartedError(InputError):
    """A session would be started."""


def stop(*_: Any, **__: Any) -> Any:
    raise StartedError(STARTED)


@cache
def laid(folder: Path) -> tuple[str, dict[Path, bytes]]:
    """A model, plans, a machine and arrays in the folder: the hash of the model's graph, and all files."""
    launch.Cluster = stop  # type: ignore[assignment, attr-defined]  # nothing is started in this process
    write_huggingface(folder / "tiny", SMALL)
    (folder / "m.toml").write_text(MACHINE)
    np.save(folder / "ids.npy", np.array([[1, 2, 3]]))
    np.savez(folder / "ids.npz", input_ids=np.array([[1, 2, 3]]))
    for mesh, path in (("tp=2", "plan.json"), ("dp=2", "other.json")):
        code, out, err = called(("plan", "tiny", "--mesh", mesh, "-o", path, "--json", "--allow-unused"), folder, {})
        assert code == 0, err
    return json.loads(out)["graph"], {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def called(words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """`unitp WORDS` in this process, in a folder: its exit code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    saved, before = dict(os.environ), os.getcwd()
    os.chdir(folder)
    try:
        os.environ.clear()
        home = {"HOME": str(folder), "XDG_CACHE_HOME": CACHE}
        os.environ.update({**home, "PATH": saved.get("PATH", ""), "COLUMNS": "120", **environment})
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.call(list(words))
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(saved)
    return code, out.getvalue(), err.getvalue()


RIGHT: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("plan", "tiny", "--mesh", "tp=2", "--json"), {"mesh": "tp=2", "graph": ...}),
    (("plan", "tiny", "--mesh", "dp=2,tp=2", "--json", "--memory-limit", "1GiB"), {"mesh": "dp=2,tp=2", "memory_limit": 1 << 30}),
    (("plan", "tiny", "--phase", "x:batch=1,seq=1,cache=64,weight=2", "--json"), {"mesh": "tp=1", "graph": ...}),
    (("plan", "tiny", "--machine", "m.toml", "--mesh", "tp=2", "--json", "--pin", "token_embd.*: R"), {"pins": ["token_embd.*: R"]}),
    (("show", "plan.json", "--model", "tiny", "--json"), {"graph": ...}),
    (("show", "plan.json", "--json"), {"graph": ...}),
    (("explain", "plan.json", "blk.0.ffn_down.weight", "--model", "tiny", "--json"), {"exact": True}),
    (("diff", "plan.json", "plan.json", "--model", "tiny", "--json"), {"same": True}),
    (("diff", "plan.json", "other.json", "--model", "tiny", "--json"), {"same": False}),
    (("machines", "m.toml", "--json"), {}),
    (("models", "--json"), {"models": ...}),
    (("config", "show", "--json"), {"mesh": {"value": "tp=1", "origin": "default"}}),
    (("program", "plan.json", "--model", "tiny", "--json"), {"program": ...}),
)  # fmt: skip
STARTING: tuple[tuple[str, ...], ...] = (
    ("generate", "tiny", "--prompt-ids", "1,2,3"),
    (
        "generate",
        "tiny",
        "--prompt-ids",
        "1",
        "--temperature",
        "0.5",
        "--top-k",
        "4",
        "--top-p",
        "0.5",
        "--seed",
        "1",
        "--max-new-tokens",
        "3",
    ),
    (
        "generate",
        "tiny",
        "--plan",
        "plan.json",
        "--prompt-ids",
        "1",
        "--context",
        "32",
        "--threads",
        "1",
        "--dtype",
        "float32",
    ),
    ("chat", "tiny"),
    ("run", "tiny", "--input", "input_ids=ids.npy", "-o", "out.npz"),
    ("run", "tiny", "--inputs", "ids.npz", "-o", "out.npz"),
    ("compare", "tiny", "--backend", "numpy", "--backend", "torch", "--prompt-ids", "1,2"),
    ("bench", "tiny", "--prompt-tokens", "4", "--new-tokens", "2"),
    ("trace", "tiny", "-o", "trace.json", "--prompt-tokens", "4", "--new-tokens", "2"),
    ("export", "plan.json", "--model", "tiny", "--to", "dtensor", "-o", "out.py"),
    ("export", "plan.json", "--model", "tiny", "--to", "onnx-sharding", "-o", "out.onnx"),
    ("export", "plan.json", "--model", "tiny", "--to", "tp-plan", "-o", "out.json"),
    ("show", "plan.json", "--model", "tiny", "--html", "page.html"),
    ("program", "plan.json", "--model", "tiny", "--phase", "decode:cache=64", "--rank", "1"),
)
"""What would start ranks, and what writes files."""
FLAGS = (
    "--mesh", "--machine", "--phase", "--pin", "--memory-limit", "--objective", "--time-limit", "--plan", "--dtype", "--context",
    "--threads",
    "--port", "--stall-s", "--isolation", "--backend", "--prompt", "--prompt-ids", "--max-new-tokens", "--temperature", "--top-k",
    "--top-p", "--seed",
    "--stop", "--system", "--input", "--inputs", "--prompt-tokens", "--new-tokens", "--rank", "--model", "--to", "--strict", "-o",
    "--html", "--json", "--chat",
    "--ignore-eos", "--allow-unused", "-v", "--help", "--version", "--", "-", "--nothing",
)  # fmt: skip


def one(rng: random.Random, folder: Path) -> Input:
    what = rng.choices(("right", "values", "flags", "files", "verbs", "environment"), (15, 35, 22, 13, 8, 7))[0]
    words, right = rng.choice(RIGHT)
    if what == "right":
        return Input(words, folder, right)
    found = list(rng.choice((*(w for w, _ in RIGHT), *STARTING)))
    environment = {}
    match what:
        case "values":
            for _ in range(rng.choice((1, 1, 2, 4))):
                found[rng.randrange(1, len(found))] = value(rng)
        case "flags":
            for _ in range(rng.choice((1, 1, 2, 5))):
                at = rng.randrange(1, len(found) + 1)
                found[at:at] = [rng.choice(FLAGS), value(rng)][: rng.choice((1, 2, 2))]
        case "files":
            places = [
                i
                for i, w in enumerate(found)
                if w in ("tiny", "plan.json", "other.json", "m.toml", "ids.npz", "out.npz", "out.py", "page.html")
            ]
            for i in places:
                if rng.random() < 0.7:
                    found[i] = path(rng)
        case "verbs":
            found = rng.choice(
                (
                    [],
                    [name(rng)],
                    [rng.choice(list(cli.VERBS)), name(rng)],
                    [rng.choice(FLAGS)],
                    ["plna", "tiny"],
                    ["config", name(rng)],
                    ["doctor", "--nothing"],
                )
            )
        case "environment":
            environment = {rng.choice(VARIABLES): value(rng).replace("\0", "") for _ in range(2)}
    usable = (w.replace("\0", "").encode(errors="surrogateescape").decode(errors="surrogateescape") for w in found)
    return Input(tuple(usable), folder, None, environment)


VARIABLES = (
    *("UNITP_MESH", "UNITP_MACHINE", "UNITP_CONTEXT", "UNITP_BACKEND", "UNITP_DTYPE", "_UNITP_COMPLETE"),
    *("COLUMNS", "LINES", "TERM", "LANG", "NO_COLOR", "FORCE_COLOR", "PAGER"),
)


def path(rng: random.Random) -> str:
    return rng.choice(
        (
            "absent", "", ".", "..", "/", "/dev/null", "/dev/zero", "tiny", "tiny/config.json", "tiny/model.safetensors", "m.toml",
            "plan.json", "ids.npy", "fifo", "sparse.json",
            "loop", "x" * 300, "x/" * 3000, "plan.json/", "plan.json/x", "h100-nvlink", "llama-3.1-8b", "smollm2-136m", "tiny.gguf", "-",
            name(rng),
        )
    )  # fmt: skip


def value(rng: random.Random) -> str:
    number = rng.choice([n for n in NUMBERS if not isinstance(n, int) or abs(n) < 10**40])
    return rng.choice(
        (
            str(number), str(number), name(rng), path(rng), "9" * 5000, "-1", "nan", "inf", "1e999", "0x10", "1_0", "\u0663", "true",
            "=", ",", ":",
            "tp=1000000", "dp=4096,tp=4096", f"tp={'9' * 5000}", "tp=2,tp=2", "tp=0", "xx=2", "tp=2" + ",dp=1" * 9, "tp=\u0662", "tp",
            f"dp={number}",
            f"x:batch={number}", f"x:batch=1,seq=1,cache={number},weight={number}", "x:" + "batch=1," * 900, ":",
            f"decode:cache={number}", f"{name(rng)}:batch=1",
            f"{number}GiB", "99999999999999999TB", "-1GB", "0B", "blk.*: S(99999)@tp", f"{'*a' * 40}: R", "[: R", "*: S(0)@tp, S(1)@tp",
            f"{name(rng)}: R", "x: Q",
            "1," * 5000, "1,,2", f"{number},1", "input_ids=absent", "input_ids", "memory", "float64", "float16", "numpy", "torch", "x",
        )
    )  # fmt: skip


def feed(given: Input) -> bool:
    """Carry out the command. Raises UnitpError where it ends with an exit code that says so."""
    graph, files = laid(given.folder)
    reset(given.folder, files)
    code, out, err = called(given.words, given.folder, given.environment)
    assert code in (0, 1, 2, 3), (code, err)
    assert "Traceback" not in err, err
    assert harmless(SPINNER.sub("", out.replace("\t", " "))), out
    assert harmless(SPINNER.sub("", err.replace("\t", " "))), err
    if given.right is not None:
        assert code == 0, err
        found = json.loads(out)
        for key, wanted in given.right.items():
            assert key in found, found
            assert wanted is ... or found[key] == wanted, (key, found[key], wanted)
        assert found.get("graph", graph) == graph
        return True
    if code:
        assert (out + err).strip() or code == 1, "it fails without a word"
        raise InputError(f"exit code {code}")
    if "--json" in given.words and out.lstrip().startswith("{"):
        json.loads(out)
    return False


def reset(folder: Path, files: dict[Path, bytes]) -> None:
    """Files are as they were, what commands wrote is gone, and what is not a file is there."""
    for found in folder.iterdir():
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
    for path, data in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    with (folder / "sparse.json").open("wb") as file:
        file.truncate(3 << 30)
