"""A driver for tests to do things to: `driver.py BACKEND[/TRANSPORT] PREFILL|DECODE [--children fork|pool] [--expected FILE]`.

It prints `launching`, `child PID` for what it forks, and `turn` for every prefill or token, in float64. When its standard
input ends it makes one last turn, closes the session and prints `right`; a wrong result is an AssertionError. An error of
unitp is printed on standard error, with its exit code. With `--expected`, results are compared to those of the file;
`driver.py expect FILE` writes it, from one unsharded rank.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unitp.comparison.metrics import relative_error
from unitp.errors import UnitpError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backend
from unitp.plugins.spec import BackendSpec
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT, tiny

PROMPT = [1, 2, 3]
LONG_PROMPT = list(range(1, 40)) * 8
TOKENS = 40
MOST_ERROR = 1e-12
FORK_AFTER_S = 0.3


def say(words: str) -> None:
    print(words, flush=True)


class Turns:
    """Turns of work, each compared to what is expected."""

    def __init__(self, session: Session, expected: dict[str, Any]) -> None:
        self.session, self.expected = session, expected

    def prefill(self) -> None:
        logits = self.session.run(input_ids=[LONG_PROMPT], last=True)["logits"]
        if self.expected:
            error = relative_error(logits, np.array(self.expected["logits"]))
            assert error < MOST_ERROR, f"wrong logits: {error}"
        say("turn")

    def decode(self) -> None:
        tokens = []
        for token in self.session.generate(PROMPT, TOKENS, ignore_eos=True):
            tokens.append(int(token))
            say("turn")
        if self.expected:
            assert tokens == self.expected["tokens"], f"wrong tokens: {tokens}"


def model() -> Graph:
    return tiny(vocab=97, max_context=1024).graph


def session_of(spec: BackendSpec, mesh: Mesh, graph: Graph, transport: str = "native") -> Session:
    decided = plan(Request(graph, mesh, machine=EAGER_TO_SPLIT))
    return launch(graph, decided, spec, dtype="float64", transport=transport)


def expect(path: Path) -> None:
    with session_of(backend("numpy"), Mesh(tp=1), model()) as session:
        logits = session.run(input_ids=[LONG_PROMPT], last=True)["logits"]
        tokens = [int(token) for token in session.generate(PROMPT, TOKENS, ignore_eos=True)]
    path.write_text(json.dumps({"logits": logits.tolist(), "tokens": tokens}))


def idle() -> None:
    signal.pause()


def fork() -> None:
    """A child that lives until it is killed; in order, when this process ends."""
    child = os.fork()
    if not child:
        idle()
        os._exit(0)
    atexit.register(os.kill, child, signal.SIGKILL)
    say(f"child {child}")


def pool() -> None:
    """Two processes of a data loader, say."""
    for _ in range(2):
        child = multiprocessing.get_context("fork").Process(target=idle, daemon=True)
        child.start()
        say(f"child {child.pid}")


CHILDREN: dict[str, Callable[[], None]] = {"none": lambda: None, "fork": fork, "pool": pool}


def drive(spec: BackendSpec, transport: str, stage: str, children: str, expected: dict[str, Any]) -> None:
    graph = model()
    over = threading.Event()

    def wait() -> None:
        os.read(0, 1)
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    say("launching")
    if stage == "start":
        threading.Timer(FORK_AFTER_S, CHILDREN[children]).start()
    with session_of(spec, Mesh(tp=2), graph, transport) as session:
        if stage != "start":
            CHILDREN[children]()
        turns = Turns(session, expected)
        turn = turns.prefill if stage == "prefill" else turns.decode
        while not over.is_set():
            turn()
        turn()
    say("right")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend")
    parser.add_argument("stage")
    parser.add_argument("--children", choices=CHILDREN, default="none")
    parser.add_argument("--expected", type=Path)
    given = parser.parse_args()
    if given.backend == "expect":
        expect(Path(given.stage))
        return 0
    name, _, transport = given.backend.partition("/")
    spec = __import__("unitp_fake").SPEC if name == "fake" else backend(name)
    expected = json.loads(given.expected.read_text()) if given.expected else {}
    try:
        drive(spec, transport or "native", given.stage, given.children, expected)
    except UnitpError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
