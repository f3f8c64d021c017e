"""All files from elsewhere are read here: regular files of bounded size, and text whose contents are checked.

A file may be anything: a pipe that never ends, a device, a hole of terabytes, text that nests a million levels deep. Any
fault is raised as an error of the caller's choice (`mistake`) that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from unitp.errors import InputError, UnitpError, from_signal

Path = str | os.PathLike[str]
Mistake = type[UnitpError]

MOST_PARTS = 100
"""Parts of a dotted key of TOML. One of 64 KiB of parts takes 22 s to read."""
MOST_TEXT = 64 << 20
"""Bytes of a file that is read as a whole: configs, indexes, tokenizers, templates, plans. Real ones have up to 30 MB."""


@contextmanager
def opened(path: Path, mistake: Mistake = InputError, *, what: str = "", hint: str = "") -> Iterator[BinaryIO]:
    """A regular file, open for reading, without waiting for anything. `what` describes it in messages ("the plan ").

    Raises `mistake` for whatever the system refuses in the meantime.
    """
    name = f"{what}{os.fspath(path)}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.close(handle)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise mistake(f"cannot read {name}: it is no regular file")
            yield file
    except OSError as error:
        raise mistake(f"cannot read {name}: {error.strerror or error}", hint=hint) from None
    except ValueError as error:
        if "null" not in str(error):  # of a path
            raise
        raise mistake(f"cannot read {os.fspath(path)!r}: {error}") from None


def require_whole(file: BinaryIO, path: Path, mistake: Mistake) -> int:
    """The size of a file without holes, in bytes. Raises `mistake` for a hole: an unfinished download leaves one, and it reads as zeros."""
    size = os.fstat(file.fileno()).st_size
    if size and (hole := os.lseek(file.fileno(), 0, os.SEEK_HOLE)) < size:
        raise mistake(f"{os.fspath(path)} has a hole at byte {hole} of {size}", hint="Its download may be unfinished.")
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return size


def read_bytes(path: Path, mistake: Mistake = InputError, *, most: int = MOST_TEXT, what: str = "") -> bytes:
    """All bytes of a regular file of at most `most` bytes. Raises `mistake` for others."""
    with opened(path, mistake, what=what) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if max(size, len(data)) > most:
        raise mistake(f"{os.fspath(path)} has {size} bytes, at most {most} are read")
    return data


def read_text(path: Path, mistake: Mistake = InputError, *, most: int = MOST_TEXT, what: str = "") -> str:
    """The text of a file in UTF-8. Raises `mistake` for others."""
    try:
        return read_bytes(path, mistake, most=most, what=what).decode()
    except UnicodeDecodeError as error:
        raise mistake(f"cannot read {what}{os.fspath(path)}: it is not UTF-8 at byte {error.start}") from None


def parse_json(data: str | bytes, where: object, mistake: Mistake = InputError) -> dict[str, Any]:
    """The JSON object in a text. Raises `mistake` for duplicate keys, numbers that JSON does not have, and endless nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f'"{next(name for name in names if names.count(name) > 1)}" is there twice')
        return found

    def no_number(text: str) -> None:
        raise ValueError(f"{text} is no number of JSON")

    try:
        found = json.loads(data, object_pairs_hook=unique, parse_constant=no_number)
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # ValueError: also of too many digits, and of bytes that are no text
        raise mistake(f"{where} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise mistake(f"{where} is no JSON object")
    return found


def parse_toml(text: str, where: object, mistake: Mistake = InputError) -> dict[str, Any]:
    """The TOML document in a text. Raises `mistake` for keys of more than `MOST_PARTS` parts: `tomllib` takes their number squared."""
    if max(part.count(".") for part in re.split(r"[=,\n\[\]{}#]", text)) > MOST_PARTS:
        raise mistake(f"{where} is not TOML: a key has more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and too many digits
        raise mistake(f"{where} is not TOML: {error}") from None


def unicode(text: str) -> str:
    """The same text. Raises InputError for lone surrogates, which are bytes that were not UTF-8 at their origin."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text has {text[error.start]!r} at character {error.start}, which is not Unicode",
            hint="It was not in UTF-8 where it came from.",
        ) from None
    return text


@contextmanager
def foreign(what: str, mistake: Mistake = InputError) -> Iterator[None]:
    """A context in which whatever a foreign reader raises becomes a `mistake` about `what`.

    Exceptions that a user's signal handler raises pass through. A panic of a reader in Rust is not an `Exception`.
    """
    try:
        yield
    except UnitpError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if from_signal(error) or not (panic or isinstance(error, Exception)):
            raise
        text = str(error) or type(error).__name__
        raise mistake(f"{what}: {text}") from None
