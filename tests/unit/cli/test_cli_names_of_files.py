"""Errors and files with names of strangers: a terminal obeys no error, and what is written stays in the folder that was named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import NAMES, WORD, harmless
from hostile_plan import built

from unitp import cli, plan_file, texts
from unitp.cli.run import require_members, write_archive
from unitp.errors import InputError, MeshError, PlanError, UnitpError
from unitp.mesh import Mesh
from unitp.testing.models import TINY, write_huggingface

# errors


@pytest.mark.parametrize("name", NAMES)
def test_an_error_commands_no_terminal_whoever_prints_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = UnitpError(f'no "{NAMES[name]}"', hint=f"Did you mean {NAMES[name]}?")
    assert all(c.isprintable() or c in "\n\t" for c in str(error))
    cli.fail(error)
    assert harmless(capsys.readouterr().err.replace("\t", " "))


def test_an_argument_that_click_refuses_commands_no_terminal(unitp: Any) -> None:
    for arguments in (
        ["show", "a", WORD], ["show", f"--{WORD}"], [WORD], ["plan", "m", "--objective", WORD], ["bench", "m", "--new-tokens", WORD],
    ):  # fmt: skip
        said = unitp(*arguments)
        assert (said.code, harmless(said.out), harmless(said.err)) == (2, True, True), repr(said.err)


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_names_and_nothing_else(name: str) -> None:
    with pytest.raises(MeshError) as caught:
        Mesh(**{NAMES[name]: 2})
    assert all(c.isprintable() or c in "\n\t" for c in caught.value.message)
    file = json.loads(plan_file.encode(built(True)[1]))
    file["mesh"] = {NAMES[name]: 2}
    with pytest.raises(PlanError):
        plan_file.decode(json.dumps(file).encode())


# files


def test_models_with_odd_names_of_files_are_planned_and_written(tmp_path: Path, unitp: Any) -> None:
    """A folder's name may be any bytes but a slash; what is made of them stays in the folder that was named."""
    for number, name in enumerate((*(n for k, n in NAMES.items() if k != "path"), "-o", "\udcff\udc80")):
        at = write_huggingface(tmp_path / name.translate({0: "0", 47: "_"}), TINY)
        out = f"plan{number}{at.name}.json"
        told = unitp("plan", f"./{at.name}", "--mesh", "tp=2", "-o", f"./{out}", "--json").json
        assert (told["model"], told["output"]) == (texts.as_unicode(at.name), f"./{out}")
        for verb, more in (
            ("show", ["--html", f"./p{out}.html"]),
            ("export", ["--to", "tp-plan", "-o", f"./t{out}.py"]),
        ):
            said = unitp(verb, f"./{out}", *more, "--model", f"./{at.name}")
            assert (said.code, harmless(said.out), harmless(said.err)) == (0, True, True), said.err
    assert not list(tmp_path.glob("**/ran"))


def test_an_archive_has_no_member_outside_its_folder() -> None:
    for name in ("x", "file", "allow_pickle", "a/b", "a..b", *(NAMES[n] for n in ("markup", "colours", "python"))):
        require_members([name])
        write_archive(file := io.BytesIO(), {name: np.arange(3)})
        with np.load(io.BytesIO(file.getvalue())) as found:
            assert [*found] == [name]
            np.testing.assert_array_equal(found[name], np.arange(3))
    for name in (
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        "..",
        "c:\\x",
        "..\\x",
        "\\\\host\\x",
        "a\0b",
        "\udcff",
        NAMES["path"],
    ):
        with pytest.raises(InputError, match="cannot be the name of a file in an archive"):
            require_members([name])
