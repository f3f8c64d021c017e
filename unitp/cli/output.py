"""What verbs print: results to standard output (text, or one JSON object), progress and logs to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

PIPED_WIDTH = 10_000


def console() -> Console:
    """Results. Piped, lines are not cut to the width of a terminal that is not there."""
    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)


def errors() -> Console:
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=PIPED_WIDTH)


def say(text: str) -> None:
    """A line of results, taken literally."""
    console().print(text, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """One JSON object on standard output; characters that it cannot show are escaped."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    shown = text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8")
    sys.stdout.write((text if shown == text else json.dumps(json.loads(text), indent=2)) + "\n")


@contextmanager
def progress(text: str = "") -> Iterator[Callable[[str], None]]:
    """Gives a function that says what is being done, on standard error: a spinner, or lines when piped."""
    out = errors()
    if out.is_terminal:
        with out.status(escape(text or "looking")) as status:
            yield lambda new: status.update(escape(new))
    else:
        if text:
            out.print(text, markup=False, highlight=False)
        yield lambda new: out.print(new, markup=False, highlight=False)


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[str, float], None]]:
    """Gives a function that is told what is being done and which part of all is, on standard error: a bar, or lines when piped."""
    out = errors()
    if not out.is_terminal:
        seen: list[str] = []

        def line(new: str, part: float) -> None:
            stage = new.partition(",")[0] if new.count(",") < 2 else new.rpartition(",")[0]
            if stage not in seen[-1:]:
                seen.append(stage)
                out.print(f"{part:4.0%} {new}", markup=False, highlight=False)

        yield line
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(escape(text), total=1.0)
        yield lambda new, part: bar.update(task, completed=part, description=escape(new))


def table(*columns: str) -> Table:
    """A plain table; columns that begin with ">" are aligned to the right. A last column of words may wrap."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        right, last = column.startswith(">"), place == len(columns) - 1
        made.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right or not last)
    return made


def print_table(rows: Table) -> None:
    """A table as a result. Nothing is cut where the terminal is narrow. Piped, lines end with their last word."""
    out = console()
    wide = out.options.update(width=PIPED_WIDTH)
    for column in rows.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(Measurement.get(out, wide, cell).maximum for cell in cells)
    out.width = max(out.width, Measurement.get(out, wide, rows).minimum)
    if out.is_terminal:
        out.print(rows)
        return
    with out.capture() as text:
        out.print(rows)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
