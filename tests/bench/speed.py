"""Speed, as ratios within one run: what `make bench` prints, and what is wanted of it.

    decode     64 tokens after a prompt of 16, one thread per rank, median of 5 interleaved rounds, against `transformers`
               in float32 on the same weights; every measured session is warm, all are open at the same time
    prefill    the same for a prompt of 256
    overheads  what is paid before and beside the computation (`overheads.py`)

Absolute figures of a shared machine mean little; a ratio of medians that were measured in turn does. The exit code is 1
where a wanted figure is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import msgspec
from overheads import Line, overheads, runnable
from peer import Peer, Took

import unitp
from unitp.frontends.gguf import llama_config
from unitp.frontends.gguf_file import read_gguf
from unitp.frontends.known_models import find
from unitp.mesh import Mesh
from unitp.plugins.discover import backends
from unitp.session.session import Session
from unitp.testing.models import arrays, write_huggingface

MODEL = "smollm2-135m"
ROUNDS, NEW_TOKENS = 5, 64
PROMPT, LONG_PROMPT = 16, 256
PEER = "transformers"
WANTED = {"torch tp=1": 1.0, "numpy tp=1": 1.5}
"""How many times as fast as the peer a decode step has to be."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="speed.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--backend", action="append", choices=[*backends()], help="measure these only")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = runnable(given.backend)
    lines = []
    say("overheads")
    for line in chain(overheads(names), generation(names, given.rounds)):
        lines.append(line)
        if not given.json:
            print(line, flush=True)
    if given.json:
        print(msgspec.json.encode({"lines": lines}).decode())
    sys.exit(1 if any(line.met is False for line in lines) else 0)


# tokens


def generation(names: list[str], rounds: int) -> Iterator[Line]:
    """Decode and prefill of every backend at tp=1 and tp=2 against the peer."""
    model = unitp.load(MODEL)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        say("writing the weights for transformers")
        peer = stack.enter_context(Peer(as_huggingface(Path(folder) / "smollm2")))
        runs: dict[str, Callable[[list[int], int], Took]] = {PEER: peer.generate}
        for name in names:
            for width in (1, 2):
                say(f"starting {name} on {width}")
                session = stack.enter_context(unitp.launch(model, unitp.plan(model, Mesh(tp=width)), name, context=512))
                runs[f"{name} tp={width}"] = generator(session)
        ids = model.tokenizer.encode(" ".join(["The history of tensors begins with a question about space."] * 30))
        yield from decode_lines(interleaved(runs, ids[:PROMPT], NEW_TOKENS, rounds))
        yield from prefill_lines(interleaved(runs, ids[:LONG_PROMPT], 2, rounds))


def generator(session: Session) -> Callable[[list[int], int], Took]:
    """Greedy generation on a session, timed as the peer is: from the call to each token in the driver."""

    def generate(ids: list[int], new_tokens: int) -> Took:
        begun = time.perf_counter()
        steps = session.generation([ids], new_tokens, ignore_eos=True)
        next(steps)
        first = time.perf_counter()
        for _ in steps:
            pass
        return Took(steps.tokens[0], first - begun, time.perf_counter() - begun)

    return generate


def interleaved(
    runs: dict[str, Callable[[list[int], int], Took]], ids: list[int], new_tokens: int, rounds: int
) -> dict[str, list[Took]]:
    """All runs in turn, `rounds` times, after one that is not counted."""
    found: dict[str, list[Took]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        say(f"{new_tokens} tokens after {len(ids)}, round {turn} of {rounds}")
        for name, run in runs.items():
            took = run(ids, new_tokens)
            if turn:
                found[name].append(took)
    return found


def decode_lines(found: dict[str, list[Took]]) -> Iterator[Line]:
    speeds = {name: statistics.median(took.decode_per_s for took in runs) for name, runs in found.items()}
    tokens = found[PEER][0].tokens
    for name, speed in speeds.items():
        ratio, wanted = speed / speeds[PEER], WANTED.get(name)
        agree = "same tokens" if all(took.tokens == tokens for took in found[name]) else "OTHER TOKENS"
        yield Line(
            f"decode, {name}",
            f"{speed:6.1f} tokens/s, {ratio:.2f} times, {agree}",
            f"at least {wanted}" if wanted else "",
            ratio >= wanted if wanted else None,
        )


def prefill_lines(found: dict[str, list[Took]]) -> Iterator[Line]:
    speeds = {name: LONG_PROMPT / statistics.median(took.first_s for took in runs) for name, runs in found.items()}
    for name, speed in speeds.items():
        yield Line(f"prefill, {name}", f"{speed:6.1f} tokens/s, {speed / speeds[PEER]:.2f} times")


def as_huggingface(folder: Path) -> Path:
    """SmolLM2's weights, dequantised, as a directory that `transformers` reads."""
    file = read_gguf(find(MODEL))
    return write_huggingface(folder, llama_config(file), arrays(file.tensors))


def say(text: str) -> None:
    """Progress, on standard error: a line that the next one replaces, where somebody is watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text} ...\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
