"""`python -m speed`: what `make bench` runs. It says each figure as it is taken, then prints the tables.

The exit code is 1 where something that is wanted was measured and missed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

import unitp
from speed import peers, report
from speed.figures import Key
from speed.files import MODEL, Files
from speed.limits import MEASURE, Limits, matrices
from speed.machine import Taken, pinning, taken, this
from speed.peers import PeerError
from speed.rounds import Turn, run
from speed.sessions import Running, speller
from speed.subjects import FLOAT32, Subject, chosen, everyone
from speed.turns import MACHINE, UNITS, Runner, Turns
from unitp.errors import UnitpError
from unitp.frontends.model import Model
from unitp.plugins.discover import backends, missing
from unitp.plugins.spec import BackendSpec

ROUNDS, FOLDER = 7, Path(".bench")
Opened = TypeVar("Opened", bound=Runner)
PROMPT = " ".join(["The history of tensors begins with a question about space."] * 30)


def main() -> None:
    given = arguments()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that nothing is left of sessions and files
    if given.draw:
        result = report.decoded(given.draw.read_bytes())
    else:
        try:
            result = measured(given.rounds, given.only)
        except ValueError as error:
            sys.exit(f"speed: {error}")
        for path in report.write(result, given.folder):
            say(f"written: {path}")
    if given.docs:
        into_documents(result, given.docs)
    print(f"\n{report.text(result)}")
    sys.exit(any(line.met is False for line in result.wanted()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"rounds that count (default {ROUNDS})")
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="those only in whose name is one of these: numpy,llama"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"for speed.json, .txt and .svg (default {FOLDER})")
    parser.add_argument("--docs", type=Path, help="write the figures into this folder's documents, too")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="measure nothing: the figures are in this file")
    return parser.parse_args()


def positive(word: str) -> int:
    """A number of rounds. Raises ValueError for one that cannot be."""
    if (number := int(word)) < 1:
        raise ValueError(word)
    return number


def into_documents(result: report.Result, docs: Path) -> None:
    """Put figures and picture into the documents, and the JSON that they come from beside them."""
    page = docs / "speed.md"
    page.write_text(report.into(page.read_text("utf-8"), result), "utf-8")
    (docs / "speed.svg").write_text(report.picture(result), "utf-8")
    (docs / "speed.json").write_bytes(report.encoded(result))


class Started(NamedTuple):
    """What is open at the same time, warm, all through the run; and what could not be started."""

    runners: dict[Subject, Runner]
    clocked: dict[Subject, Running]
    left_out: dict[Subject, str]


def measured(rounds: int, only: str) -> report.Result:
    """Start everything, measure it in turn, and end it."""
    specs = {name: spec for name, spec in backends().items() if not missing(spec, 2)}
    subjects = chosen(everyone(specs), only)
    model = unitp.load(MODEL)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        limits = Limits(matrices(model.graph))
        stack.callback(limits.close)
        started = start(subjects, specs, model, Files(Path(folder)), stack)
        processors = {subject: pinning(runner.pids) for subject, runner in started.runners.items()}
        pids = [pid for runner in (*started.runners.values(), *started.clocked.values()) for pid in runner.pids]
        turns = Turns(limits, model.tokenizer.encode(PROMPT))
        busy: list[Taken] = []
        figures, failed = run([*turns.of(started.runners, started.clocked)], rounds, told(rounds, busy, pids))
        about = tuple(
            report.About(s, cpus, turns.texts.same(s)) for s, cpus in processors.items()
        )  # fmt: skip
    return report.Result(
        machine=this(),
        model=MODEL,
        model_bytes=4 * sum(n * k for n, k in matrices(model.graph)),
        rounds=rounds,
        taken=Taken(*(sum(parts) / len(busy) for parts in zip(*busy, strict=True))),
        about=about,
        figures=report.kept(figures),
        left_out={subject.name: why for subject, why in (started.left_out | failed).items()},
    )


def start(
    subjects: Sequence[Subject], specs: Mapping[str, BackendSpec], model: Model, files: Files, stack: ExitStack
) -> Started:
    """Start all subjects. One that cannot run here is left out."""
    started = Started({}, {}, {})
    even = unitp.load(str(files.even_heads)) if any(s.shape for s in subjects) else model
    for subject in subjects:
        its = even if subject.shape else model
        try:
            say(f"starting {subject.name}")
            if subject.maker not in specs:
                started.runners[subject] = closing(stack, peers.start(subject, files, speller(its)))
                continue
            started.runners[subject] = closing(stack, Running(subject, its, specs))
            if subject.maker == "numpy" and subject.ranks > 1 and subject.weights == FLOAT32:
                started.clocked[subject] = closing(stack, Running(subject, its, specs, clocked=True))
        except (UnitpError, PeerError) as error:
            started.left_out[subject] = str(error)
            say(f"left out: {subject.name}: {error}")
    return started


def closing(stack: ExitStack, runner: Opened) -> Opened:
    """The runner, which is closed when the stack is."""
    stack.callback(runner.close)
    return runner


def told(rounds: int, busy: list[Taken], pids: Sequence[int]) -> Callable[[int, Turn, Mapping[Key, float]], None]:
    """Says what a turn has found, and looks how busy the machine is without us."""
    begun = time.monotonic()

    def tell(number: int, turn: Turn, found: Mapping[Key, float]) -> None:
        busy.append(taken(pids))
        figures = ", ".join(f"{named(key)} {value:.1f} {UNITS[key.measure]}" for key, value in found.items())
        minutes = (time.monotonic() - begun) / 60
        where = f"round {number} of {rounds}" if number else "not counted"
        who = "the machine" if turn.subject == MACHINE else turn.subject.name
        say(f"{minutes:5.1f} min  {where}  {who}: {figures} (others {busy[-1].others:.0%})")

    return tell


def named(key: Key) -> str:
    """What a figure of a turn is: its measure, or of the machine's limits the way and the number of processes."""
    return f"{key.subject.maker} x {key.subject.ranks}" if key.measure == MEASURE else key.measure


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
