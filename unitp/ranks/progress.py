"""Progress pages: each process maps a page of eight numbers that says what it is doing, and the watchdog reads it.

The worker's loop writes the activity and its subject. The engine writes the instruction (`PageProgress.at`, some 50 ns:
an item assignment in shared memory). A thread writes a heartbeat, which therefore stops only if the whole process does.
"""

from __future__ import annotations

import enum
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from unitp.host import at_host

HEARTBEAT, ACTIVITY, SUBJECT, INSTRUCTION, TURNS = range(5)
SIZE = 64
BEAT_S = 0.5


class Activity(enum.IntEnum):
    """What a process is doing. Its subject is the number of a parameter (LOADING) or a program (COMPILING, RUNNING)."""

    STARTING = 0
    IMPORTING = 1
    JOINING = 2
    IDLE = 3
    LOADING = 4
    ALLOCATING = 5
    COMPILING = 6
    RUNNING = 7
    PROBING = 8
    CLOSING = 9
    SERVING = 10


class Page:
    """The progress page at `path`: eight signed 64-bit numbers. With `create` the file is made, else it must exist.

    Raises HostError if there is no room for it.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        with at_host(path), open(os.open(path, flags, 0o600), "r+b") as file:
            if create:
                os.posix_fallocate(file.fileno(), 0, SIZE)  # a full disk is an error here, not a bus error later
            self._map = mmap.mmap(file.fileno(), SIZE)
        self.numbers = memoryview(self._map).cast("q")

    def close(self) -> None:
        """Unmap the page."""
        self.numbers.release()
        self._map.close()

    def enter(self, activity: Activity, subject: int = 0) -> None:
        """Record the activity that begins."""
        numbers = self.numbers
        numbers[INSTRUCTION] = -1
        numbers[SUBJECT] = subject
        numbers[ACTIVITY] = activity
        numbers[TURNS] += 1

    @property
    def activity(self) -> Activity:
        return Activity(self.numbers[ACTIVITY])

    @property
    def subject(self) -> int:
        return self.numbers[SUBJECT]

    @property
    def instruction(self) -> int:
        """The number of the running instruction, or -1 if the engine has not recorded any."""
        return self.numbers[INSTRUCTION]

    @property
    def place(self) -> tuple[int, int]:
        """How far the process is: comparable between ranks, and changing as long as there is progress."""
        return self.numbers[TURNS], self.numbers[INSTRUCTION]

    @property
    def heartbeat(self) -> int:
        """A number that changes with each sign of life."""
        return self.numbers[HEARTBEAT]

    def beat(self) -> None:
        self.numbers[HEARTBEAT] = time.monotonic_ns()

    def keep_beating(self, period_s: float = BEAT_S) -> None:
        """Start the heartbeat thread."""

        def run() -> None:
            while True:
                self.beat()
                time.sleep(period_s)

        threading.Thread(target=run, name="heartbeat", daemon=True).start()


class PageProgress:
    """The object by which an engine records its current instruction (`unitp.engine.engine.Progress`).

    While recording, `at` is a function that also records the time; otherwise nothing is spent on that.
    """

    __slots__ = ("_marks", "_numbers", "at", "recording")

    def __init__(self, page: Page) -> None:
        self._numbers = page.numbers
        self._marks: list[tuple[int, int]] = []
        self.at: Callable[[int], None] = self._say
        self.recording = False

    def record(self) -> None:
        """Begin to record when each instruction begins."""
        numbers, now, marks = self._numbers, time.monotonic_ns, self._marks

        def at(instruction: int) -> None:
            marks.append((instruction, now()))
            numbers[INSTRUCTION] = instruction

        self.at, self.recording = at, True

    def recorded(self) -> list[tuple[int, int]]:
        """End the recording. Returns the instructions (or the first one of each segment) in order, and when each began.

        Times are nanoseconds of a clock that all processes of a host share.
        """
        marks, self._marks, self.at, self.recording = self._marks, [], self._say, False
        return marks

    def _say(self, instruction: int) -> None:
        self._numbers[INSTRUCTION] = instruction
