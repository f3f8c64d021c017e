"""`driver.py` in a process of its own, as the tests see it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

DRIVER = Path(__file__).with_name("driver.py")
FAKES = Path(__file__).parents[1] / "fakes"
BORN_S = 180.0


class Driver:
    """A driver of a backend at a stage (see `driver.py`), and what it has said so far."""

    def __init__(self, backend: str, stage: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), backend, stage, *arguments],
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self.errors: list[str] = []
        for stream, lines in ((self.process.stdout, self.said), (self.process.stderr, self.errors)):
            assert stream is not None
            threading.Thread(target=_follow, args=(stream, lines), daemon=True).start()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.finish()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def children(self) -> list[int]:
        """What it forked."""
        return [int(line.split()[1]) for line in self.said if line.startswith("child ")]

    def wait_for(self, word: str) -> None:
        """Until it has said a word."""
        deadline = time.monotonic() + BORN_S
        while not any(line.split()[0] == word for line in self.said):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {word} from the driver: {self.last_words()}")
            time.sleep(0.01)

    def finish(self) -> None:
        """Have it make its last turn."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def ends_within(self, limit_s: float) -> bool:
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        time.sleep(0.05)  # its last words may be under way
        return True

    def last_words(self) -> str:
        return "".join(self.errors).strip() or f"exit code {self.process.poll()}"


def _follow(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(iter(stream.readline, ""))
