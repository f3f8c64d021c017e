"""Prediction against measurement: what `make bench-prediction` prints, and what is wanted of it.

For every backend a machine file is measured (`unitp calibrate`; `--machines FOLDER` keeps and reuses them), then SmolLM2-135M
runs on one rank and on two, planned and priced with it: a prompt of 256 tokens, and decode steps after it. `predicted` is for the
programs that ran, caches rounded up as the runtime does. `regret` is how much slower the width that the prediction prefers is
than the one that was measured faster, for a prompt and 200 steps.

A disturbed machine says little: rounds of all widths are interleaved and medians are taken. The exit code is 1 where the mean
absolute error is above 15 %, or a regret above 1.05.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean

import msgspec

import unitp
from unitp.calibration import calibrate
from unitp.comparison.breakdown import breakdown
from unitp.cost import Machine
from unitp.cost.machine_file import load_machine
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backends, missing
from unitp.session.launch import launch
from unitp.session.session import Session, TracedCall

MODEL = "smollm2-135m"
PROMPT, NEW_TOKENS, ROUNDS, STEPS = 256, 32, 5, 200
WIDTHS = (1, 2)
MOST_ERROR, MOST_REGRET = 0.15, 1.05


class Line(msgspec.Struct, frozen=True):
    """Seconds of one call."""

    backend: str
    ranks: int
    phase: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1


class Choice(msgspec.Struct, frozen=True):
    """What the prediction prefers of the widths, and how much slower that is than the best measured."""

    backend: str
    preferred: int
    best: int
    regret: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="prediction.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=[*backends()], help="measure these only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--machines", type=Path, help="a folder of machine files, NAME.toml; missing ones are measured")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = [n for n, spec in backends().items() if (not given.backend or n in given.backend) and not missing(spec, 2)]
    lines: list[Line] = []
    with ExitStack() as stack:
        folder = given.machines or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        model = unitp.load(MODEL)
        for name in names:
            machine = machine_of(name, folder / f"{name}.toml")
            for line in measured(model, name, machine, given.rounds):
                lines.append(line)
                if not given.json:
                    print(text(line), flush=True)
    choices = [choice(name, [line for line in lines if line.backend == name]) for name in names]
    error = mean(abs(line.error) for line in lines)
    if given.json:
        print(msgspec.json.encode({"lines": lines, "choices": choices, "mean_absolute_error": error}).decode())
    else:
        for found in choices:
            print(f"{found.backend:12} prefers tp={found.preferred}, best tp={found.best}, regret {found.regret:.3f}")
        print(f"mean absolute error {error:.1%} (at most {MOST_ERROR:.0%})")
    sys.exit(error > MOST_ERROR or any(found.regret > MOST_REGRET for found in choices))


def machine_of(name: str, file: Path) -> Machine:
    """The machine of a backend: from its file, or measured and written there."""
    if not file.exists():
        stage = ""

        def tell(what: str, part: float) -> None:
            nonlocal stage
            if what.partition(",")[2].partition(",")[0] != stage:
                stage = what.partition(",")[2].partition(",")[0]
                print(f"{part:4.0%} {what}", file=sys.stderr, flush=True)

        file.write_text(calibrate(name, max(WIDTHS), tell=tell).text, "utf-8")
    return load_machine(file)


def measured(model: Model, name: str, machine: Machine, rounds: int) -> Iterator[Line]:
    """Prefill and decode on each width, rounds interleaved, after one that is not counted."""
    prompt = [(7 * i + 11) % 49152 for i in range(PROMPT)]
    calls: dict[int, list[TracedCall]] = {width: [] for width in WIDTHS}
    with ExitStack() as stack:
        sessions: dict[int, Session] = {}
        for width in WIDTHS:
            mesh = Mesh(tp=width) if width > 1 else Mesh()
            planned = plan(Request(model.graph, mesh, machine=machine, model=model.name))
            sessions[width] = stack.enter_context(launch(model, planned, name, context=512))
        for turn in range(rounds + 1):
            for width, session in sessions.items():
                print(f"{name}, round {turn} of {rounds}, tp={width}", file=sys.stderr, flush=True)
                with session.tracing() as found:
                    for _ in session.generation([prompt], NEW_TOKENS, ignore_eos=True):
                        pass
                calls[width] += found if turn else []
    for width in WIDTHS:
        for phase in breakdown(calls[width], machine):
            yield Line(name, width, phase.phase, phase.predicted_s, phase.measured_s)


def choice(name: str, lines: list[Line]) -> Choice:
    def whole(width: int, of: str) -> float:
        weights = {"prefill": 1, "decode": STEPS}
        seconds: float = sum(weights[line.phase] * getattr(line, of) for line in lines if line.ranks == width)
        return seconds

    preferred = min(WIDTHS, key=lambda width: whole(width, "predicted_s"))
    best = min(WIDTHS, key=lambda width: whole(width, "measured_s"))
    return Choice(name, preferred, best, whole(preferred, "measured_s") / whole(best, "measured_s"))


def text(line: Line) -> str:
    return (
        f"{line.backend:12} tp={line.ranks} {line.phase:8} predicted {line.predicted_s * 1e3:8.2f} ms, "
        f"measured {line.measured_s * 1e3:8.2f} ms, {line.error:+6.1%}"
    )


if __name__ == "__main__":
    main()
