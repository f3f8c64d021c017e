"""Reads all files from elsewhere: regular files of bounded size, and text whose contents are checked.

A file may be anything: a pipe that never ends, a device, a hole of terabytes, text that nests a million levels deep. Whatever
is wrong with one is an error of the caller's choice (`mistake`) that names the file.

What JSON and TOML give can be used, printed and compared like any other value: nothing nests deeper than `DEEPEST`, whole
numbers have at most `MOST_DIGITS`, texts have no halves of characters, no key is there twice, and in JSON numbers are finite.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any, BinaryIO

from unitp.errors import InputError, UnitpError, from_signal
from unitp.texts import cut

Path = str | os.PathLike[str]
Mistake = type[UnitpError]

MOST_PARTS = 20
"""The most parts of a dotted key in TOML. Reading one takes time that grows with their square: 22 s for a key of 64 KiB."""
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*+"""
_DOTTED = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:\.[ \t]*+{_PART}){{{MOST_PARTS}}}")
DEEPEST = 64
MOST_DIGITS = 40
"""The most digits of a whole number: `tokenizer_config.json` files have 10**30 for "no limit"."""
MOST_JSON = 16 << 20
"""The most bytes of JSON: 16 MiB of empty lists become 400 MB of objects. The largest known index of weights has 9 MB."""
MOST_TEXT = 64 << 20
"""The most bytes of a file that is read as a whole: configs, indexes, tokenizers, templates, plans. Real ones have up to 30 MB."""


@contextmanager
def opened(path: Path, mistake: Mistake = InputError, *, what: str = "", hint: str = "") -> Iterator[BinaryIO]:
    """Open a regular file for reading, without waiting for anything. `what` describes it in messages ("the plan ").

    Raises `mistake` if the file is not regular, and for whatever the system refuses meanwhile.
    """
    name = f"{what}{os.fspath(path)}"
    try:
        _require_regular(os.stat(path).st_mode, name, mistake)  # opening may have an effect on a device
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _require_regular(os.fstat(file.fileno()).st_mode, name, mistake)
            yield file
    except OSError as error:
        raise mistake(f"cannot read {name}: {error.strerror or error}", hint=hint) from None
    except ValueError as error:
        if "null" not in str(error):  # of a path
            raise
        raise mistake(f"cannot read {os.fspath(path)!r}: {error}") from None


def _require_regular(mode: int, name: str, mistake: Mistake) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        raise mistake(f"cannot read {name}: it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")


def require_whole(file: BinaryIO, path: Path, mistake: Mistake) -> int:
    """Return the size of a file without holes, in bytes.

    Raises `mistake` for a hole: an unfinished download leaves one, and it reads as zeros.
    """
    size = os.fstat(file.fileno()).st_size
    if size and (hole := os.lseek(file.fileno(), 0, os.SEEK_HOLE)) < size:
        raise mistake(f"{os.fspath(path)} has a hole at byte {hole} of {size}", hint="Its download may be unfinished.")
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return size


def read_bytes(path: Path, mistake: Mistake = InputError, *, most: int = MOST_TEXT, what: str = "") -> bytes:
    """Return all bytes of a regular file of at most `most` bytes. Raises `mistake` for others."""
    with opened(path, mistake, what=what) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if max(size, len(data)) > most:
        raise mistake(f"{os.fspath(path)} has {size} bytes, at most {most} are read")
    return data


def read_text(path: Path, mistake: Mistake = InputError, *, most: int = MOST_TEXT, what: str = "") -> str:
    """Return the text of a file in UTF-8. Raises `mistake` for others."""
    try:
        return read_bytes(path, mistake, most=most, what=what).decode()
    except UnicodeDecodeError as error:
        raise mistake(f"cannot read {what}{os.fspath(path)}: it is not UTF-8 at byte {error.start}") from None


def read_json(path: Path, mistake: Mistake = InputError, *, what: str = "") -> dict[str, Any]:
    """Return the JSON object in a file of at most `MOST_JSON` bytes."""
    return parse_json(read_bytes(path, mistake, most=MOST_JSON, what=what), os.fspath(path), mistake)


def parse_json(data: str | bytes, where: object, mistake: Mistake = InputError, *, hint: str = "") -> dict[str, Any]:
    """Return a JSON object. A key that is there twice, a number that JSON does not have, and endless nesting are mistakes."""

    def no_number(text: str) -> None:
        raise ValueError(f"{text} is not a number in JSON")

    try:
        text = data.decode() if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=no_number)
        _require_plain(found, finite=True)
    except (ValueError, RecursionError, MemoryError) as error:  # ValueError: also for bytes that are not text
        raise mistake(f"{where} is not JSON: {_why(error)}", hint=hint) from None
    if not isinstance(found, dict):
        raise mistake(f"{where} is not a JSON object", hint=hint)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f'"{cut(counts.most_common(1)[0][0])}" is there twice')
    return found


def parse_toml(text: str, where: object, mistake: Mistake = InputError) -> dict[str, Any]:
    """Return a TOML document. A key of more than `MOST_PARTS` parts is a mistake. Numbers may be `inf` or `nan`; callers check that."""
    if _DOTTED.search(text):
        raise mistake(f"{where} is not TOML: a key has more than {MOST_PARTS} parts")
    try:
        found = tomllib.loads(text)
        _require_plain(found, finite=False)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and too many digits
        raise mistake(f"{where} is not TOML: {_why(error)}") from None
    return found


def _require_plain(value: Any, *, finite: bool) -> None:
    """Raise ValueError for what cannot be used, printed and compared like any other value."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise RecursionError
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item
                inside += item.values()
            elif isinstance(item, list):
                inside += item
            elif isinstance(item, str):
                if not item.isascii():
                    item.encode()
            elif isinstance(item, float):
                if finite and not isfinite(item):
                    raise ValueError("a number is too large")
            elif isinstance(item, int) and abs(item) >= 10**MOST_DIGITS:
                raise ValueError(f"a whole number has more than {MOST_DIGITS} digits")
        level = inside


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return f"it nests deeper than {DEEPEST} levels"
    if isinstance(error, UnicodeEncodeError):
        return "a text has half of a character (a lone surrogate)"
    return cut(str(error).strip() or type(error).__name__, 500)


def unicode(text: str) -> str:
    """Return the same text. Raises InputError for lone surrogates, which are bytes that were not UTF-8 at their origin."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text has {text[error.start]!r} at character {error.start}, which is not Unicode",
            hint="It was not in UTF-8 where it came from.",
        ) from None
    return text


@contextmanager
def foreign(what: str, mistake: Mistake = InputError, *, hint: str = "") -> Iterator[None]:
    """Turn whatever a foreign reader raises into a `mistake` about `what`, but not what a handler of the user's signals raises.

    Errors of unitp pass unchanged. A panic of a reader in Rust is turned as well, although it is not an `Exception`.
    """
    try:
        yield
    except UnitpError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if from_signal(error) or not (panic or isinstance(error, Exception)):
            raise
        raise mistake(f"{what}: {_why(error)}", hint=hint) from None
