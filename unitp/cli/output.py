"""What verbs print: results go to standard output (text, or one JSON object), progress and logs to standard error.

There is no markup, and nobody else prints. A part of a line is text, or a pair of text and style, and names in it cannot
be commands to a terminal. Text that a model generates is what the user asked for: a terminal gets it without control
characters, a pipe or a file as it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from unitp.texts import shown, shown_json, tame

PIPED_WIDTH = 10_000

Part = str | tuple[str, str]
"""Text, or text and its style."""
PROSE = "\n\t\xa0\u200c\u200d"
"""What a prompt or an answer may have beside characters that can be seen: lines, spaces, and joiners of letters."""


def _results() -> Console:
    """Piped, lines are not cut to the width of a terminal that is not there."""
    return _console(sys.stdout.isatty())


def _remarks() -> Console:
    return _console(sys.stderr.isatty(), stderr=True)


def _console(terminal: bool, *, stderr: bool = False) -> Console:
    """A console that knows no markup. Sizes of a terminal that no terminal has (COLUMNS, LINES) are left out."""
    sizes = {name: os.environ.get(name, "") for name in ("COLUMNS", "LINES")}
    odd = {
        name for name, size in sizes.items() if size and not (size.isdecimal() and int(size[:6]) > 0 and len(size) < 6)
    }
    environment = {name: value for name, value in os.environ.items() if name not in odd}
    return Console(
        stderr=stderr,
        width=None if terminal else PIPED_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
        _environ=environment,
    )


def text_of(*parts: Part, keep: str = "") -> Text:
    """The parts as one text for rich, with visible characters only (and those of `keep`)."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((shown(text, keep), style) for text, style in pairs))


def say(*parts: Part, keep: str = "") -> None:
    """Print a line of results, or several if line feeds are kept."""
    _results().print(text_of(*parts, keep=keep))


def remark(*parts: Part, keep: str = "") -> None:
    """Print a line on standard error, or several if line feeds are kept."""
    _remarks().print(text_of(*parts, keep=keep))


def over(transport: str, runtime: str) -> str:
    """What carries the collectives, for a table: `native (tf.distribute/RING)`, `mpi`, `one process`."""
    return f"{transport} ({runtime})" if transport == "native" else transport or runtime


def say_generated(text: str) -> None:
    """Print a piece of what a model generates, at once."""
    sys.stdout.write(tame(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print one JSON object on standard output. Characters that are invisible, or that it cannot show, are escaped."""
    try:
        text = shown_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    except UnicodeEncodeError:  # the name of a file that is not UTF-8: JSON can say it, msgspec does not
        text = json.dumps(_finite(msgspec.to_builtins(value, str_keys=True)), indent=2)
    same = text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8")
    sys.stdout.write((text if same == text else json.dumps(json.loads(text), indent=2)) + "\n")


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have, as msgspec writes them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@contextmanager
def progress(text: str = "") -> Iterator[Callable[[str], None]]:
    """A context with a function that shows a stage on standard error: with a spinner, or as lines when piped."""
    out = _remarks()
    if out.is_terminal:
        with out.status(text_of(text or "looking")) as status:
            yield lambda new: status.update(text_of(new))
    else:
        if text:
            remark(text)
        yield remark


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[str, float], None]]:
    """A context with a function that shows a stage and the part done on standard error: with a bar, or as lines when piped."""
    out = _remarks()
    if not out.is_terminal:
        seen: list[str] = []

        def line(new: str, part: float) -> None:
            stage = new.partition(",")[0] if new.count(",") < 2 else new.rpartition(",")[0]
            if stage not in seen[-1:]:
                seen.append(stage)
                remark(f"{part:4.0%} {new}")

        yield line
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(shown(text), total=1.0)
        yield lambda new, part: bar.update(task, completed=part, description=shown(new))


class Rows(Table):
    """A table whose cells are text, or text and its style."""

    def add(self, *cells: Part) -> None:
        self.add_row(*map(text_of, cells))


def table(*columns: str) -> Rows:
    """A plain table. Columns that begin with ">" are aligned to the right. A last column of words may wrap."""
    made = Rows(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        right, last = column.startswith(">"), place == len(columns) - 1
        header = text_of(column.removeprefix(">"))
        made.add_column(header, justify="right" if right else "left", no_wrap=right or not last)
    return made


def print_table(rows: Table) -> None:
    """Print a table as a result. A narrow terminal cuts nothing. Piped, lines end with their last word."""
    out = _results()
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
