"""Hostile inputs for whatever reads: `attack.py --seed 7 --count 20000 [--reader NAME] [--from K]`, which is `make attack`.

A reader is a module beside this file (see `READERS`) with

    NAME                            what it is called
    one(rng, folder)                makes an input, of `rng` alone: number K of a seed is always the same one. Where its `harmless` is
                                    true, it has to be right: refused is a failure
    feed(given) -> bool             gives one to the product. UnitpError: it was refused. True: it was taken, and what came of it
                                    was checked to be right. False: it was taken, and there is nothing to compare it with.
                                    Any other exception is a failure, AssertionError too: what came of it is wrong.

`rng` is a `random.Random` of its own for each input, so that number K is made without those before it. `folder` is an empty folder
that the reader may write to. Enough inputs have to be harmless, with a result that can be said beforehand: a product that refuses
everything would fail.

A process of its own works through the inputs of a reader. A failure is also what kills it, takes longer than `SECONDS`, or
asks for more than `MEMORY` bytes beyond what it had; and an error whose words no terminal or file could take. An input that
takes long is tried again, since the host may be busy with other things. `--reader NAME --from K --count 1` tries one alone.
The exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "shared")]

READERS = {
    "gguf": "gguf_models",
    "safetensors": "safetensors_models",
    "configs": "config_files",
    "tokenizers": "tokenizer_files",
    "templates": "templates",
    "plans": "plan_files",
    "machines": "machine_files",
    "settings": "settings",
    "arrays": "array_inputs",
    "command line": "command_lines",
    "wire": "wire_bytes",
}
"""Modules by what their readers are called."""
SECONDS = 5.0
MEMORY = 1 << 30
ADDRESSES = 4 << 30
"""Bytes of address space beyond what a process has when it begins: what asks for more gets MemoryError, and not the host's memory."""
TRIES = 3
LONGEST = 20_000
"""Characters of an error."""
LONGEST_INPUT = 1000
"""Characters of an input that are shown."""
FEW = 50
"""From so many inputs on, some must have been right."""


class Outcome(NamedTuple):
    """What came of an input: refused, right, taken, or failed with `words`; in so many seconds, with so many bytes more."""

    number: int
    what: str
    words: str = ""
    seconds: float = 0.0
    bytes: int = 0


def feed(reader: Any, given: Any) -> tuple[str, str]:
    """What comes of an input, and the words of a failure."""
    from unitp.errors import UnitpError

    try:
        return "right" if reader.feed(given) else "taken", ""
    except UnitpError as error:
        words = str(error)
        if given.harmless:
            return "failed", f"it is harmless, and was refused: {words[:LONGEST_INPUT]!a}"
        if len(words) > LONGEST or not all(c.isprintable() or c in "\n\t" for c in words):
            return "failed", f"an error of {len(words)} characters: {words[:200]!r}"
        return "refused", ""
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  (that none is raised is what is tried)
        return "failed", traceback.format_exc()


def inputs(reader: Any, seed: int, numbers: range, folder: Path) -> Iterator[Any]:
    """The inputs of a seed with these numbers. Those before them are not made."""
    seeds = random.Random(f"{reader.NAME} {seed}")
    for number in range(numbers.stop):
        of_one = seeds.getrandbits(64)
        if number in numbers:
            yield reader.one(random.Random(of_one), folder)


def high_water(*, reset: bool = False) -> int:
    """The most bytes that this process has held, since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def work(name: str, seed: int, numbers: range, folder: Path, tell: int) -> None:
    """Feed these inputs of a reader (or of any module on the path), and tell of each when it begins and what came of it."""
    reader = importlib.import_module(READERS.get(name, name))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for number, given in zip(numbers, inputs(reader, seed, numbers, folder), strict=True):
        os.write(tell, f"{json.dumps({'begins': number})}\n".encode())
        before = high_water(reset=True)
        began = time.monotonic()
        what, words = feed(reader, given)
        words = f"{ascii(given)[:LONGEST_INPUT]}\n{words}" if words else ""
        seconds, more = time.monotonic() - began, high_water() - before
        os.write(tell, f"{json.dumps(Outcome(number, what, words, seconds, more))}\n".encode())


def attack(name: str, seed: int, numbers: range) -> Iterator[Outcome]:
    """What comes of these inputs of a reader. Its process is started again where one ended it, or had to be ended."""
    tries = 0
    while numbers:
        with tempfile.TemporaryDirectory(prefix="unitp-attack-") as folder:
            for outcome in _in_a_process(name, seed, numbers, Path(folder)):
                slow = outcome.what == "failed" and not outcome.words
                tries = tries + 1 if slow or outcome.seconds > SECONDS else 0
                numbers = range(outcome.number + (not 0 < tries < TRIES), numbers.stop)
                if 0 < tries < TRIES:
                    break
                tries = 0
                yield _judged(outcome)
                if outcome.what == "failed":
                    break  # what it left behind is not the next one's fault


def _judged(outcome: Outcome) -> Outcome:
    """A failure also where it took too long, or too much."""
    if outcome.seconds > SECONDS:
        return outcome._replace(what="failed", words=f"{outcome.words}it took {outcome.seconds:.1f} s, {TRIES} times")
    if outcome.bytes > MEMORY:
        return outcome._replace(what="failed", words=f"{outcome.words}it took {outcome.bytes >> 20} MiB")
    return outcome


def _in_a_process(name: str, seed: int, numbers: range, folder: Path) -> Iterator[Outcome]:
    """Outcomes one after the other; a failure without words, at the end, where an input had to be ended for its time."""
    told, tell = os.pipe()
    log = folder / "log"
    (folder / "files").mkdir()
    worker = [sys.executable, __file__, "--worker", name, "--seed", str(seed), "--from", str(numbers.start)]
    worker += ["--count", str(len(numbers)), "--folder", str(folder / "files"), "--tell", str(tell)]
    environment = os.environ | {"RUST_BACKTRACE": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("wb") as words, open(told, "rb", buffering=0) as pipe:
        process = subprocess.Popen(
            worker, stdout=words, stderr=words, stdin=subprocess.DEVNULL, pass_fds=[tell], env=environment
        )
        os.close(tell)
        try:
            yield from _outcomes(pipe, process, log)
        finally:
            process.kill()
            process.wait()


def _outcomes(pipe: Any, process: subprocess.Popen[bytes], log: Path) -> Iterator[Outcome]:
    left, number, began = b"", -1, time.monotonic()
    while True:
        patience = max(0.0, began + (2 * SECONDS if number >= 0 else 60.0) - time.monotonic())
        if not select.select([pipe], [], [], patience)[0]:
            assert number >= 0, f"the process of a reader does not begin: {log.read_text(errors='replace')[-2000:]}"
            yield Outcome(number, "failed", "", time.monotonic() - began)
            return
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            code = process.wait()
            if number >= 0 or code:
                said = log.read_text(errors="replace")[-2000:]
                assert number >= 0, f"the process of a reader failed: {said}"
                yield Outcome(number, "failed", f"the process ended with {code}: {said}", time.monotonic() - began)
            return
        *lines, left = (left + data).split(b"\n")
        for line in lines:
            found = json.loads(line)
            number, began = (found["begins"], time.monotonic()) if isinstance(found, dict) else (-1, time.monotonic())
            if not isinstance(found, dict):
                yield Outcome(*found)


class Tally:
    """What came of the inputs of a reader."""

    def __init__(self, name: str) -> None:
        self.name, self.outcomes = name, list[Outcome]()

    def count(self, what: str) -> int:
        return sum(outcome.what == what for outcome in self.outcomes)

    @property
    def problem(self) -> str:
        """Why the reader has failed as a whole, if it has."""
        if len(self.outcomes) >= FEW and not self.count("right"):
            return f"{self.name}: of {len(self.outcomes)} inputs none was right, though some are harmless"
        return ""

    def __str__(self) -> str:
        slowest = max((o.seconds for o in self.outcomes), default=0.0)
        most = max((o.bytes for o in self.outcomes), default=0) >> 20
        counts = "".join(f"{self.count(what):9}" for what in ("refused", "right", "taken", "failed"))
        return f"{self.name:14}{len(self.outcomes):9}{counts}{slowest:9.2f} s{most:7} MiB"


HEAD = (
    f"{'reader':14}{'inputs':>9}{'refused':>9}{'right':>9}{'taken':>9}{'failed':>9}{'slowest':>11}{'most memory':>11}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=20_000, help="of all readers together, or of --reader")
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tell", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        numbers = range(given.start, given.start + given.count)
        work(given.worker, given.seed, numbers, given.folder, given.tell)
        return
    names = [given.reader] if given.reader else list(READERS)
    numbers = range(given.start, given.start + -(-given.count // len(names)))
    print(HEAD, flush=True)
    failed = False
    for name in names:
        tally = Tally(name)
        for outcome in attack(name, given.seed, numbers):
            tally.outcomes.append(outcome)
            if outcome.what == "failed":
                again = f"--reader {name!r} --seed {given.seed} --from {outcome.number} --count 1"
                print(f"{again}\n{outcome.words}\n", file=sys.stderr, flush=True)
        print(tally, flush=True)
        if tally.problem:
            print(tally.problem, file=sys.stderr, flush=True)
        failed |= bool(tally.problem or tally.count("failed"))
    sys.exit(failed)


if __name__ == "__main__":
    main()
