"""What verbs print: results to standard output (text, or one JSON object), progress and logs to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPED_WIDTH = 200


@lru_cache
def console() -> Console:
    """Results. Piped, lines are not cut to the width of a terminal that is not there."""
    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)


@lru_cache
def errors() -> Console:
    return Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


@contextmanager
def progress(text: str) -> Iterator[Any]:
    """A spinner on standard error while something long runs, with a function that changes its text; lines when piped."""
    if errors().is_terminal:
        with errors().status(escape(text)) as status:
            yield lambda new: status.update(escape(new))
    else:
        errors().print(escape(text), highlight=False)
        yield lambda new: errors().print(escape(new), highlight=False)


def table(*columns: str, title: str = "") -> Table:
    """A plain table; columns that begin with ">" are aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        last = place == len(columns) - 1
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=not last)
    return made


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
