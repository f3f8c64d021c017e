"""Every verb, where standard output or standard error cannot be written, or knows ASCII only."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec import structs

from unitp import calibration, cli
from unitp.cli import VERBS
from unitp.cli.options import writable
from unitp.cost.machine_file import load_machine
from unitp.errors import InputError

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

PROMPT = ("--prompt-ids", "5,17,3")
SMALL = ("--prompt-tokens", "4", "--new-tokens", "2")


class Full(io.RawIOBase):
    """A file on a disk that is full."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def full() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(Full()), line_buffering=True)


@pytest.fixture(scope="module")
def arguments(folder: str, talking: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """A call of every verb that prints results and leaves with 0 or 1."""
    at = tmp_path_factory.mktemp("verbs")
    plan, ids = str(at / "plan.json"), str(at / "ids.npy")
    np.save(ids, [[5, 17, 3]])
    cli.main(["plan", folder, "--mesh", "tp=2", "-o", plan])
    return {
        "doctor": ("--no-start",),
        "plugins": (),
        "models": (),
        "machines": (),
        "plan": (folder, "--mesh", "tp=2"),
        "show": (plan, "--model", folder),
        "explain": (plan, "--model", folder),
        "diff": (plan, plan, "--model", folder),
        "program": (plan, "--model", folder),
        "export": (plan, "--model", folder, "--to", "dtensor", "-o", str(at / "table.json")),
        "generate": (folder, *PROMPT, "--max-new-tokens", "2"),
        "chat": (talking, "--max-new-tokens", "2", "--json"),
        "run": (folder, "--input", f"input_ids={ids}", "-o", str(at / "out.npz")),
        "compare": (folder, "--backend", "numpy", *PROMPT, "--max-new-tokens", "2"),
        "calibrate": ("-o", str(at / "machine.toml")),
        "bench": (folder, *SMALL),
        "trace": (folder, *SMALL, "-o", str(at / "trace.json")),
        "config": ("show",),
        "demo": ("--model", talking, "--backend", "numpy", "--max-new-tokens", "2"),
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chat` is asked one question; `calibrate` measures nothing."""
    machine = load_machine("h100-nvlink")
    (device,) = machine.devices.values()
    rows = {"float32": ((1.0, 1e9), (256.0, 1e10))}
    machine = structs.replace(machine, devices={"measured": structs.replace(device, matmul=rows)})

    def measured(name: str, ranks: int, *, tell: Callable[[str, float], None], **options: object) -> SimpleNamespace:
        tell("measuring nothing", 0.5)
        return SimpleNamespace(text="", machine=machine)

    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    monkeypatch.setattr(calibration, "calibrate", measured)


def call(*line: str) -> int:
    try:
        cli.main(line)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_all_verbs_are_tried(arguments: dict[str, tuple[str, ...]]) -> None:
    assert set(arguments) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_results_that_cannot_be_written_are_an_error(
    verb: str,
    arguments: dict[str, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", full())
    assert call(verb, *arguments[verb]) == 3
    said = capsys.readouterr().err
    assert re.search(r"standard output: No space left on device \(ENOSPC\)", said), said
    assert "free some of it" in said


@pytest.mark.parametrize("verb", VERBS)
def test_progress_that_cannot_be_written_loses_no_result(
    verb: str,
    arguments: dict[str, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stderr", full())
    assert call(verb, *arguments[verb]) in (0, 1)
    assert capsys.readouterr().out


def test_errors_that_cannot_be_written_keep_their_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", full())
    assert call("plan", "nowhere", "--mesh", "tp=2") == 2
    assert call("plan", "--no-such-flag") == 2


SHELL = {
    "{} --version >/dev/full": (3, "ENOSPC"),
    "{} --help >&-": (3, "EBADF"),
    "{} show --help >&-": (3, "EBADF"),
    "{} models --json >&-": (3, "EBADF"),
    "{} config show 2>&-": (0, ""),
    "{} config show <&- 2>&-": (0, ""),
    "{} show nowhere.json <&- >&- 2>&-": (2, ""),
    "{} machines >/dev/full 2>&1": (3, ""),
    "{} plan MODEL --mesh tp=2 -o /dev/full": (3, "/dev/full: No space left on device (ENOSPC)"),
    "{} show PLAN --model MODEL --html /dev/full": (3, "/dev/full: No space left on device (ENOSPC)"),
    "{} machines | true; exit ${{PIPESTATUS[0]}}": (1, ""),
    "TMPDIR=/nowhere {} run MODEL --input input_ids=IDS -o OUT": (3, "/nowhere (TMPDIR): No such file"),
}


@pytest.mark.parametrize("line", SHELL)
def test_streams_of_a_shell(line: str, arguments: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    """What Python finds when it begins: streams that are closed, a device that is full, a reader that is gone."""
    code, said = SHELL[line]
    names = {"MODEL": arguments["plan"][0], "PLAN": arguments["show"][0], "IDS": arguments["run"][2].partition("=")[2]}
    names["OUT"] = str(tmp_path / "out.npz")
    text = re.sub("|".join(names), lambda found: names[found[0]], line.format(f"{sys.executable} -P -m unitp"))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_what_an_ascii_terminal_cannot_show_is_replaced_or_escaped(
    more: tuple[str, ...], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with PYTHONIOENCODING=ascii. In JSON, nothing is lost."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    path = tmp_path / "größe 東京.json"
    assert call("plan", folder, "--mesh", "tp=2", "-o", str(path), *more) == 0
    said = raw.getvalue().decode("ascii")
    assert str(path) in json.loads(said).values() if more else "gr??e ??.json" in said


def test_a_file_that_may_not_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"cannot write .*no permission"):
        writable(str(tmp_path / "x"))
