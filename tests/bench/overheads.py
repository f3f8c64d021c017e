"""What is paid before and beside the computation: what `make bench-overheads` prints, and what is wanted of it.

    help       `unitp --help`, and that of two verbs, in a fresh process: processor time, as help waits for nothing
    reading, planning, explaining    30 layers, two phases, in a process that has done nothing before
    start      a session of 2 ranks, against 2 concurrent bare imports of its framework
    isolation  how much longer a start takes than without
    call       of an empty program on 2 ranks: the round trip between driver and ranks
    decoding   the share of tokens/s that is lost because the user gets each token as it is made, several steps a request,
               against all steps in one request that nobody follows
    progress   a rank's note of the instruction that it is at

Each figure is the best of a few rounds, since what else the machine does only ever adds to it. The limits are those of a
machine of 2 cores of about 3 GHz. The exit code is 1 where a wanted figure is missed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import unitp
from unitp.engine.sampling import Sampling
from unitp.frontends.builder import Builder
from unitp.mesh import Mesh
from unitp.plugins.discover import backends, missing
from unitp.program.rows import CANDIDATES
from unitp.ranks.courier import Errand
from unitp.ranks.progress import Page, PageProgress
from unitp.session.arrivals import Step
from unitp.session.decoder import Head
from unitp.session.session import Session
from unitp.session.turns import Turn
from unitp.testing.models import EAGER_TO_SPLIT, tiny
from unitp.wire.messages import Rules

MODEL = "smollm2-135m"
ROUNDS, CALLS, NOTES = 3, 300, 100_000
DECODED, DECODINGS, LOST = 96, 8, 0.03
PROMPT = [5, 6, 7, 8]
HELP_S, READING_S, PLANNING_S, EXPLAINING_S, ISOLATION_S, CALL_S, PROGRESS_S = 0.3, 1.0, 1.0, 2.0, 0.2, 1e-3, 1e-6
START_S = {"mxnet": 6.0}
"""Beyond two bare imports, where it is not 3 s: MXNet has a scheduler and a server besides, which import it too."""

IMPORTS = {"numpy": "import numpy; from mpi4py import MPI", "mxnet": "import numpy; numpy.bool = bool; import mxnet"}
"""What imports a framework, where it is not its name alone."""

PLANNING = """
import sys, time
import unitp
begun = time.perf_counter()
model = unitp.load(sys.argv[1])
read = time.perf_counter()
plan = unitp.plan(model, mesh=unitp.Mesh.parse(sys.argv[2]))
print(read - begun, time.perf_counter() - read)
"""

EXPLAINING = """
import sys, time
import unitp
from unitp.explain.alternatives import Alternatives
model = unitp.load(sys.argv[1])
plan = unitp.plan(model, mesh=unitp.Mesh(tp=2))
begun = time.perf_counter()
explained = Alternatives(plan, model.graph)
assert explained.at(sys.argv[2]) if sys.argv[2:] else explained.expensive() and explained.contested()
print(time.perf_counter() - begun)
"""


class Line(msgspec.Struct, frozen=True):
    """A measured figure. `met` is None where nothing is wanted of it."""

    what: str
    figure: str
    wanted: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        mark = {None: "", True: "met", False: "MISSED"}[self.met]
        return f"{self.what:42} {self.figure:44} {self.wanted:16} {mark}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="overheads.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=[*backends()], help="start these only")
    given = parser.parse_args()
    found = []
    for line in overheads(runnable(given.backend)):
        found.append(line)
        print(line, flush=True)
    sys.exit(1 if any(line.met is False for line in found) else 0)


def runnable(names: Sequence[str] | None) -> list[str]:
    """The backends of these names, or all, that can start two ranks here."""
    return [n for n, spec in backends().items() if (not names or n in names) and not missing(spec, 2)]


def overheads(names: Sequence[str]) -> Iterator[Line]:
    """All figures; sessions of these backends are started."""
    for verb in ((), ("generate",), ("plan",)):
        yield under(" ".join(("unitp", *verb, "--help")), best(partial(help_s, *verb)), HELP_S)
    for mesh in ("tp=2", "dp=2,tp=2"):
        both = [printed(PLANNING, mesh) for _ in range(ROUNDS)]
        yield under(f"reading {MODEL}", min(reading for reading, _ in both), READING_S)
        yield under(f"planning 30 layers, {mesh}, two phases", min(planning for _, planning in both), PLANNING_S)
    for place in ((), ("blk.7.ffn_down.weight",)):
        seconds = min(printed(EXPLAINING, *place)[0] for _ in range(ROUNDS))
        yield under(f"explaining {place[0] if place else 'the whole plan'}", seconds, EXPLAINING_S)
    for name in names:
        yield start(name)
    if "numpy" in names:
        yield under("isolation of a session", best(isolation_s), ISOLATION_S)
        yield under("a call of an empty program, 2 ranks", call_s(), CALL_S)
        for width in (1, 2):
            lost = decoding(width)
            figure, wanted = f"{lost:.1%} of tokens/s", f"at most {LOST:.0%}"
            yield Line(f"decoding through the driver, tp={width}", figure, wanted, lost <= LOST)
    yield under("a note of progress", best(progress_s), PROGRESS_S)


def under(what: str, seconds: float, limit_s: float) -> Line:
    return Line(what, f"{seconds:.3g} s", f"under {limit_s:g} s", seconds < limit_s)


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(ROUNDS))


def help_s(*verb: str) -> float:
    """Processor seconds of `unitp VERB --help` in a fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "unitp", *verb, "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def printed(script: str, *arguments: str) -> list[float]:
    """The figures that a script prints about the model, in a process that has done nothing before."""
    command = [sys.executable, "-c", script, MODEL, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in answer.stdout.split()]


def start(name: str) -> Line:
    """Starting two ranks on a small model against two bare imports."""
    imports_s(name)  # so that the files of both are cached
    more = START_S.get(name, 3.0)
    rounds = [(imports_s(name), start_s(name)) for _ in range(ROUNDS)]
    bare, started = min(rounds, key=lambda pair: pair[1] - pair[0])
    figure = f"{started:.1f} s, 2 bare imports {bare:.1f} s"
    return Line(f"start of 2 ranks, {name}", figure, f"imports + {more:.0f} s", started < bare + more)


def imports_s(name: str) -> float:
    """Seconds that two concurrent bare imports of a backend's framework take."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS.get(name, f"import {name}")]
    begun = time.perf_counter()
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    if any(process.wait() for process in started):
        raise RuntimeError(f"{name} cannot be imported")
    return time.perf_counter() - begun


def isolation_s() -> float:
    """Seconds that a start of two ranks in a namespace of their own takes beyond one without."""
    return start_s("numpy", isolation="require") - start_s("numpy", isolation="off")


def start_s(name: str, **options: Any) -> float:
    """Seconds until a session of two ranks on a small model is ready."""
    model = tiny()
    plan = unitp.plan(model, Mesh(tp=2), machine=EAGER_TO_SPLIT)
    begun = time.perf_counter()
    with unitp.launch(model, plan, name, **options):
        return time.perf_counter() - begun


def call_s() -> float:
    """Seconds of a call in which ranks have nothing to compute: of many, what a tenth stays below."""
    b = Builder("identity")
    graph = b.graph(b.Identity(b.input("x", "int64", ("batch", 1))))
    with unitp.launch(graph, unitp.plan(graph, Mesh(tp=2), allow_unused=True), "numpy") as session:
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            session.run(x=[[1]])
            times.append(time.perf_counter() - begun)
    return sorted(times)[CALLS // 10]


def decoding(width: int) -> float:
    """The share of tokens/s that is lost through the driver: the best of some rounds against the best in the ranks."""
    model = unitp.load(MODEL)
    session: Session = unitp.launch(model, unitp.plan(model, Mesh(tp=width)), "numpy", context=128)
    with session:
        rounds = [(in_ranks_s(session), by_token_s(session)) for _ in range(DECODINGS + 1)][1:]
    alone, driven = min(a for a, _ in rounds), min(d for _, d in rounds)
    return 1 - alone / driven


def in_ranks_s(session: Session) -> float:
    """Seconds of `DECODED` steps in one request."""
    head, made = Head(CANDIDATES, last=True, candidates=1), [0]

    def say(tokens: Step) -> None:
        made[0] = tokens[0] or 0

    def work(errand: Errand[float]) -> float:
        assert session.decoder is not None  # it is a language model
        bank = session.executor.banks.lease({"batch": 1, "cache": session.decoder.cache}, 1).bank
        bank.spoil()
        session.turn(errand, Turn(bank, [PROMPT], head, Rules(1, 0, (DECODED + 1,), Sampling())), say)
        rules, begun = Rules(DECODED, 1, (DECODED,), Sampling()), time.perf_counter()
        session.turn(errand, Turn(bank, [made[:]], head, rules), say)
        return time.perf_counter() - begun

    seconds: float = session.cluster.do(work)
    return seconds


def by_token_s(session: Session) -> float:
    """Seconds of as many steps of a generation, each of which is taken as it comes."""
    tokens = session.generate(PROMPT, DECODED + 1, ignore_eos=True)
    next(tokens)
    begun = time.perf_counter()
    assert sum(1 for _ in tokens) == DECODED
    return time.perf_counter() - begun


def progress_s() -> float:
    """Seconds of one note in a rank's page."""
    with tempfile.TemporaryDirectory() as folder:
        progress = PageProgress(Page(Path(folder) / "page", create=True))
        begun = time.perf_counter()
        for number in range(NOTES):
            progress.at(number)
        return (time.perf_counter() - begun) / NOTES


if __name__ == "__main__":
    main()
