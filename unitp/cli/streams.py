"""The standard streams as verbs use them, even if they are closed, full, broken pipes, or limited to ASCII.

Results that cannot be written are an OSError about "standard output". Progress that cannot be written is dropped, because
the result that comes after it is worth more. Characters that a stream does not know are replaced.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

OUTPUT = "standard output"


class Stream:
    """A text stream for which a failed write is an error, or is ignored (`dropped`)."""

    def __init__(self, stream: TextIO, *, dropped: bool) -> None:
        self._stream, self._dropped, self._failed = stream, dropped, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._refusals():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._refusals():
            self._stream.flush()

    def give_up(self) -> None:
        """Leave nothing that the interpreter would write at its end, which would fail again."""
        if self._failed:
            with suppress(io.UnsupportedOperation), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            if not self._dropped:
                error.filename = OUTPUT
                raise


@contextmanager
def standard_streams() -> Iterator[None]:
    """A context in which standard input, output and error exist and can be relied on."""
    _open_closed()
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # it writes what was there before
                stream.reconfigure(errors="replace")
    results, remarks = Stream(sys.stdout, dropped=False), Stream(sys.stderr, dropped=True)
    sys.stdout, sys.stderr = results, remarks
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        results.give_up()
        remarks.give_up()


def _open_closed() -> None:
    """Open a stream that was closed before Python began (`>&-`), because otherwise a socket would get its number."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # results find that they cannot be written
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False))
