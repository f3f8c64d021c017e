"""The door for files of strangers: what comes through it is a regular file of a bounded size, or an error in words."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import unitp
from unitp import plan_file
from unitp.cost.machine_file import load_machine
from unitp.errors import InputError, ModelError, UnitpError
from unitp.files import (
    MOST_JSON,
    MOST_TEXT,
    foreign,
    opened,
    parse_json,
    parse_toml,
    read_bytes,
    read_text,
    require_whole,
    unicode,
)
from unitp.session.array_files import read_arrays


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as some:
        some.bind(os.fspath(path))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


def absent(path: Path) -> None:
    assert not path.exists()


KINDS: dict[Callable[[Path], None], str] = {
    fifo: "it is a FIFO, not a regular file",
    device: "it is a device, not a regular file",
    folder: "it is a folder, not a regular file",
    unix_socket: "it is a socket, not a regular file",
    huge: "has 3221225472 bytes",
    absent: "No such file",
}
READERS = {
    "text": lambda path: read_text(path),
    "plan": plan_file.load,
    "machine": load_machine,
    "gguf": lambda path: unitp.load(
        path.rename(path.with_suffix(".gguf")) if os.path.lexists(path) else path.with_suffix(".gguf")
    ),
    "config": lambda path: unitp.load(
        path.rename(path.with_suffix(".json")) if os.path.lexists(path) else path.with_suffix(".gguf")
    ),
    "arrays": lambda path: read_arrays(os.fspath(path)),
}


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_of_its_kind_is_refused_at_once(
    reader: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    make(path)
    with pytest.raises(UnitpError) as raised:
        READERS[reader](path)
    said = raised.value.message
    holes = make is huge and reader in ("gguf", "arrays")
    assert (
        ("hole" in said or "arrays" in said)
        if holes
        else any(w in said for w in (KINDS[make], "no machine", "config.json"))
    ), said


def test_a_hole_is_an_unfinished_download(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(b"x" * 8192)
        file.truncate(1 << 20)
    with opened(path, ModelError) as file, pytest.raises(ModelError, match=r"has a hole at byte 8192 of 1048576"):
        require_whole(file, path, ModelError)
    path.write_bytes(b"x" * 8192)
    with opened(path) as file:
        assert require_whole(file, path, ModelError) == 8192
        assert file.read(1) == b"x"


def test_a_file_is_read_up_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with pytest.raises(InputError, match="has 5 bytes, at most 4"):
        read_bytes(path, most=4)
    with pytest.raises(InputError, match="null"):
        read_bytes("a\0b")
    path.write_bytes(b"ab\xff")
    with pytest.raises(InputError, match="not UTF-8 at byte 2"):
        read_text(path)
    assert MOST_TEXT > 30 << 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', '"a" is there twice'),
        ('{"a": {"b": 1, "b": 2}}', '"b" is there twice'),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": ' + "1" * 5000 + "}", "4300 digits"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"a": 1e999}', "a number is too large"),
        ('{"a": ' + "1" * 41 + "}", "more than 40 digits"),
        (r'{"a": ["\ud800"]}', "half of a character"),
        (r'{"\udc00": 1}', "half of a character"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "nests deeper than 64 levels"),
        (b"\xff", "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_what_is_no_json_object_is_told(text: str | bytes, why: str) -> None:
    with pytest.raises(ModelError, match=f"^here.*{why}"):
        parse_json(text, "here", ModelError)


def test_json_that_all_read_alike_is_taken() -> None:
    text = r'{"a": [1.5, -0.0, 10, 1000000000000000019884624838656], "é\ud83e\uddd1": {"b": null, "c": [true]}}'
    assert parse_json(text, "here") == json.loads(text)
    assert parse_json('{"a": ' + "[" * 62 + "]" * 62 + "}", "here")


def test_what_json_becomes_has_a_bound() -> None:
    """Of what takes most memory for its length."""
    data = b'{"a": [' + b"{}," * (MOST_JSON // 3 - 4) + b"1]}"
    assert len(data) <= MOST_JSON
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(parse_json(data, "here")["a"]) == MOST_JSON // 3 - 3
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 1 << 30


@pytest.mark.parametrize(
    "text",
    [
        "a = ",
        "a = 1\na = 2",
        "a = " + "1" * 5000,
        "a = " + "[" * 100_000,
        "a = 0x" + "f" * 6000,
        "a = " + "[" * 64 + "]" * 64,
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_toml_is_told(text: str) -> None:
    with pytest.raises(InputError, match=r"^here is not TOML"):
        parse_toml(text, "here")


@pytest.mark.parametrize(
    "text", ["a." * 30_000 + "a = 1", "[" + "a." * 30_000 + "a]", "x = { " + "a . " * 30_000 + "a = 1 }"]
)
def test_a_key_of_toml_with_very_many_parts_is_refused_before_it_is_parsed(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tomllib would take 20 s."""
    monkeypatch.setattr("tomllib.loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(InputError, match=r"^here is not TOML: a key has more than 20 parts"):
        parse_toml(text, "here")


def test_a_key_of_toml_with_twenty_parts_is_taken() -> None:
    assert parse_toml("a." * 19 + "a = 1  # ......................\nb = [[1.5, 2.5], [3.5, 4.5]]", "here")["b"] == [
        [1.5, 2.5],
        [3.5, 4.5],
    ]


class PanicException(BaseException):
    """As a panic in Rust arrives."""


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError("x"), PanicException("x")])
def test_whatever_a_foreign_reader_raises_is_one_error(error: BaseException) -> None:
    with pytest.raises(ModelError, match=r"^the file: "), foreign("the file", ModelError):
        raise error


def test_what_a_user_raises_meanwhile_comes_out_as_itself() -> None:
    class TimeIsUpError(Exception):
        pass

    def ring(*_: object) -> None:
        raise TimeIsUpError

    for error in (KeyboardInterrupt(), SystemExit(3), InputError("ours")):
        with pytest.raises(type(error)), foreign("the file"):
            raise error
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeIsUpError), foreign("the file"):
            threading.Event().wait(5)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_text_that_was_not_utf8_is_named() -> None:
    assert unicode("é\0") == "é\0"
    with pytest.raises(InputError, match=r"'\\udcff' at character 1, which is not Unicode"):
        unicode("a\udcff")


def test_a_message_has_a_bound_however_long_what_it_shows() -> None:
    for kind in (ModelError, InputError):
        error = kind("begins " + "\x1b" * 10**6 + " ends", hint="x" * 10**6)
        assert len(str(error)) < 40_000
        assert error.message.startswith("begins")
        assert error.message.endswith("ends")
        assert "characters are left out" in error.message
