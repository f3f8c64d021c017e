"""The output of ranks, copied line by line to the driver's standard error, each line with the name of its process.

Characters that would control a terminal are escaped.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from unitp.texts import tame

PERIOD_S = 0.2


class Forwarder:
    """A thread that follows log files from `start` to `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, logs: Mapping[str, Path]) -> None:
        self._thread = threading.Thread(target=self._run, args=(dict(logs),), name="unitp logs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy the rest, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, logs: dict[str, Path]) -> None:
        places = dict.fromkeys(logs, 0)
        last = False
        while not last:
            last = self._stop.wait(PERIOD_S)
            for name, path in logs.items():
                places[name] = _forward(name, path, places[name], last)


def _forward(name: str, path: Path, place: int, last: bool) -> int:
    """Copy the whole lines from offset `place` on (the last time also an unfinished one). Returns the offset to continue from."""
    if not path.exists():
        return place
    with path.open("rb") as file:
        file.seek(place)
        data = file.read()
    if not last:
        data = data[: data.rfind(b"\n") + 1]
    with suppress(OSError):  # a standard error that is full or closed is no reason to stop the work
        for line in data.decode(errors="replace").splitlines() if sys.stderr else ():
            sys.stderr.write(f"[{name}] {tame(line)}\n")
    return place + len(data)
