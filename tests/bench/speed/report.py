"""A run as a value that is kept as JSON, and what it looks like as text, Markdown and picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from speed.figures import Figures, Key, Spread, Values, combined, ratio, spread
from speed.limits import MEASURE
from speed.machine import Machine, Taken
from speed.plot import Bar, Panel, drawn
from speed.subjects import FLOAT32, Subject
from speed.table import Table
from speed.turns import (
    ALL_REDUCE,
    ALL_REDUCE_ALONE,
    BESIDE,
    DECODE,
    DECODE_8,
    DRIVER,
    LONG_PROMPT,
    MANY,
    NEW_TOKENS,
    PREFILL,
    PROMPT,
    UNITS,
)
from speed.wanted import LLAMA_2, Line, Wanted

BEGIN, END = "<!-- figures: written by `make bench DOCS=1` -->", "<!-- end of the figures -->"
MOST_TAKEN = 0.05
"""Where more of the processors was taken than this, figures are called provisional."""


class Figure(msgspec.Struct, frozen=True):
    """All values of a measure of a subject, by round."""

    measure: str
    unit: str
    subject: Subject
    values: tuple[float | None, ...]


class About(msgspec.Struct, frozen=True):
    """How a subject ran: on how many processors its processes may run, and whether it says what the others say."""

    subject: Subject
    processors: str
    same_text: bool | None


class Result(msgspec.Struct, frozen=True):
    """One run. `taken` is what others took of the processors while nothing was asked for; `left_out` says why by name."""

    machine: Machine
    model: str
    model_bytes: int
    rounds: int
    taken: Taken
    about: tuple[About, ...]
    figures: tuple[Figure, ...]
    left_out: dict[str, str]

    def figured(self) -> Figures:
        return Figures({Key(one.measure, one.subject): one.values for one in self.figures})

    def wanted(self) -> list[Line]:
        return [*Wanted(self.figured(), self.model_bytes).lines()]


def kept(figures: Figures) -> tuple[Figure, ...]:
    """Figures as they are kept."""
    return tuple(Figure(k.measure, UNITS[k.measure], k.subject, tuple(figures[k])) for k in figures)


def encoded(result: Result) -> bytes:
    """JSON, with what is wanted for those who read it elsewhere."""
    lines = [{**msgspec.to_builtins(line), "met": line.met} for line in result.wanted()]
    return msgspec.json.format(msgspec.json.encode({**msgspec.to_builtins(result), "wanted": lines}), indent=1) + b"\n"


def decoded(data: bytes) -> Result:
    return msgspec.json.decode(data, type=Result)


def head(result: Result) -> list[str]:
    """What has to be known before the figures are read."""
    machine = result.machine
    others, measured = (f"{part:.0%}" for part in result.taken)
    state = (
        f"While nothing was asked for, others took {others} of the processors, and the measured processes {measured}"
    )
    if sum(result.taken) > MOST_TAKEN:
        state += ": these figures are provisional"
    many = "1 round" if result.rounds == 1 else f"{result.rounds} rounds"
    return [
        f"{result.model}, {many}, each with everything in turn, on {machine.date}.",
        f"{machine.cores} cores of {machine.processor}, {machine.memory_gib:.0f} GiB, {machine.system}, Python {machine.python}; "
        + ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        + ".",
        f"{state}. {bound(result.about)}",
    ]


def bound(about: Sequence[About]) -> str:
    """A sentence about pinning."""
    found = sorted({one.processors for one in about})
    if len(found) == 1:
        return f"No process is bound to one core: all may run on CPUs {found[0]}."
    return "Processes may run on the CPUs that the tables list."


def tables(result: Result) -> Iterator[tuple[str, Table]]:
    """All tables, each with its title; none without rows."""
    figures = result.figured()
    titles = (
        (DECODE, f"Decode: {NEW_TOKENS} tokens after a prompt of {PROMPT}"),
        (DECODE_8, f"Decode of {MANY} prompts at once, all tokens together"),
        (PREFILL, f"Prefill: a prompt of {LONG_PROMPT}"),
    )
    for measure, title in titles:
        yield title, speeds(result, figures, measure)
    yield "Inside a decode step", inside(result, figures)
    yield "What the machine can do: GB/s of weights read", limits(figures)
    yield "What it must show", wanted(result.wanted())


def speeds(result: Result, figures: Figures, measure: str) -> Table:
    """Tokens per second of a measure, beside llama.cpp, the machine's limit, and what is said."""
    numbers = ("tokens/s", "lowest", "highest", "of llama.cpp", "of the limit")
    table = Table(("", "processes x threads", "on CPUs", *numbers, "text"), right=range(3, 8))
    bound_apart = len({one.processors for one in result.about}) > 1
    found, decoding = figures.of(measure), measure == DECODE
    for one in result.about:
        subject, values = one.subject, found.get(one.subject, [])
        seen = spread(values)
        if seen is None:
            continue
        peer = spread(ratio(values, figures[Key(measure, LLAMA_2)])) if not subject.shape else None
        table.add(
            subject.name,
            f"{subject.ranks} x {subject.threads}",
            one.processors if bound_apart else "",
            *(f"{x:.1f}" for x in (seen.median, seen.low, seen.high)),
            f"{peer.median:.2f}" if peer else "",
            of_the_limit(result, figures, subject, values) if decoding else "",
            {True: "same", False: "other", None: ""}[one.same_text] if decoding else "",
        )
    return table


def of_the_limit(result: Result, figures: Figures, subject: Subject, values: Values) -> str:
    """The part of what the machine can read that a decode needs, of float32 weights in the first shape."""
    if subject.weights != FLOAT32 or subject.shape:
        return ""
    beside = figures[Key(BESIDE, subject)]
    found = spread(combined(lambda t, gb: t * result.model_bytes / gb / 1e9, values, beside))
    return f"{found.median:.2f}" if found else ""


def inside(result: Result, figures: Figures) -> Table:
    """Microseconds of collectives, and what the driver costs."""
    table = Table(("", "what", "median", "lowest", "highest"), right=(2, 3, 4))
    names = {
        ALL_REDUCE: "small all-reduce, later rank, us",
        ALL_REDUCE_ALONE: "small all-reduce by itself, us",
        DRIVER: "no rank at a step, %",
    }
    for measure, name in names.items():
        for one in result.about:
            if seen := spread(figures[Key(measure, one.subject)]):
                table.add(one.subject.name, name, *(f"{x:.1f}" for x in (seen.median, seen.low, seen.high)))
    return table


def limits(figures: Figures) -> Table:
    table = Table(("way", "1 process", "2 processes"), right=(1, 2))
    found = figures.of(MEASURE)
    for way in dict.fromkeys(subject.maker for subject in found):
        cells = [spread(found.get(Subject(way, ranks), ())) for ranks in (1, 2)]
        table.add(way, *(cell.text(1) if cell else "" for cell in cells))
    return table


def wanted(lines: Sequence[Line]) -> Table:
    table = Table(("what", "wanted", "got", "lowest to highest", "", "of"), right=(1, 2))
    for line in lines:
        unit = f" {line.unit}" if line.unit else ""
        sign = "at most" if line.at_most else "at least"
        digits = 1 if line.unit else 2
        got: Spread | None = line.got
        table.add(
            line.what,
            f"{sign} {line.wanted:g}{unit}",
            f"{got.median:.{digits}f}{unit}" if got else "",
            f"{got.low:.{digits}f} to {got.high:.{digits}f}" if got else "",
            {True: "met", False: "MISSED", None: "not measured"}[line.met],
            line.of,
        )
    return table


def text(result: Result) -> str:
    """The whole as plain text."""
    parts = ["\n".join(head(result))]
    parts += [f"{title}\n\n{table.text()}" for title, table in tables(result) if table.rows]
    if result.left_out:
        parts.append("Left out\n\n" + "\n".join(f"{name}: {why}" for name, why in result.left_out.items()))
    return "\n\n".join(parts) + "\n"


def markdown(result: Result) -> str:
    """The whole for the documents."""
    parts = [" ".join(head(result))]
    parts += [f"### {title}\n\n{table.markdown()}" for title, table in tables(result) if table.rows]
    if result.left_out:
        parts.append("### Left out\n\n" + "\n".join(f"* {name}: {why}" for name, why in result.left_out.items()))
    return "\n\n".join(parts)


def picture(result: Result) -> str:
    """Decode and prefill of the first shape as SVG."""
    figures, panels = result.figured(), []
    for measure, title in ((DECODE, "Decode, tokens/s"), (PREFILL, f"Prefill of {LONG_PROMPT}, tokens/s")):
        bars = [
            Bar(one.subject.name, seen, one.subject.own)
            for one in result.about
            if not one.subject.shape and (seen := spread(figures[Key(measure, one.subject)]))
        ]
        panels.append(Panel(title, bars, limit_of(result, figures) if measure == DECODE else None))
    return drawn(panels)


def limit_of(result: Result, figures: Figures) -> tuple[str, float] | None:
    """How many times per second two processes can read all float32 weights, by the best way of the run."""
    best = figures.best(MEASURE, ranks=2)
    seen = spread(figures[best]) if best else None
    return (
        ("two processes can read all float32 weights, times/s", seen.median * 1e9 / result.model_bytes)
        if seen
        else None
    )


def into(document: str, result: Result) -> str:
    """A document with the figures in their place. Raises ValueError if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown(result)}\n\n{END}{after}"


def write(result: Result, folder: Path) -> list[Path]:
    """Write JSON, text and picture into a folder. Returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"speed.json": encoded(result), "speed.txt": text(result).encode(), "speed.svg": picture(result).encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]
