"""The courier is one thread of the driver that does everything with the ranks, one errand after the other.

Python runs signal handlers in the main thread. So an exception from one (Ctrl-C, a time limit) hits a thread that waits,
never the work: no message is cut, no state is half updated. Errands of several threads run in order of arrival.

    interrupted    the errand continues without its owner; `Errand.abandoned` says so, so that long work can stop between
                   two calls of the ranks. Whoever waits for the errand again gets its result.
    forked         the child has no such thread, and the connections are its parent's: its requests are refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from traceback import clear_frames
from typing import Generic, TypeVar

from unitp.errors import InputError, RankError

TICK_S = 0.5

Made = TypeVar("Made")


class Abandoned(Exception):  # noqa: N818  (no error: it ends work that nobody waits for)
    """The owner of an errand was interrupted, so the work stopped between two calls of the ranks."""


class Errand(Generic[Made]):
    """Work that runs once. `abandoned` says that its owner was interrupted, `given` that the courier has it.

    The gate is a plain lock, because an interruption can leave Python's Event and Condition in an inconsistent state.
    """

    def __init__(self, work: Callable[[Errand[Made]], Made]) -> None:
        self.abandoned = False
        self._work: Callable[[Errand[Made]], Made] | None = work
        self._done = self._failed = False
        self._gate = threading.Lock()
        self._gate.acquire()
        self._made: Made | None = None
        self._error: BaseException | None = None
        self.given = False

    def do(self) -> None:
        """Run the work, unless it has run: an errand may be given to the courier again."""
        if self._work is not None:
            self._try()
            self._done = True
            self.ring()

    def ring(self) -> None:
        """Wake whoever waits for the errand: it is done, or it has news. The work calls this."""
        with suppress(RuntimeError):  # it has rung before, and nobody has heard that yet
            self._gate.release()

    def _try(self) -> None:
        work, self._work = self._work, None
        try:
            self._made = work(self) if work else None
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            work = None
            clear_frames(error.__traceback__)  # what they hold would live as long as the error
            self._error, self._failed = error, True

    def require_owner(self) -> None:
        """Raise Abandoned if nobody waits for the errand any more. The work calls this."""
        if self.abandoned:
            raise Abandoned

    def wait(self, limit_s: float) -> bool:
        """Wait until the work is done or rings, or for at most this many seconds. Returns whether it is done."""
        if not self._done:
            self._gate.acquire(timeout=limit_s)
        return self._done

    def result(self) -> Made:
        """The result of the work, or its exception. The second time an exception would be raised, it is Abandoned instead."""
        if self._failed:
            error, self._error = self._error or Abandoned(), None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._made  # type: ignore[return-value]  # None is what such work returns


class Courier:
    """The thread: `do` runs a function on it and returns the result; `close` ends it."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[Errand[object] | None] = SimpleQueue()
        self._process = os.getpid()
        self._thread = threading.Thread(target=_run, args=(self._errands,), name="unitp courier", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether the calling thread is the courier's."""
        return threading.current_thread() is self._thread

    def require_own_process(self) -> None:
        """Raise InputError in a fork of the process that launched the session."""
        if os.getpid() != self._process:
            raise InputError(
                f"this process ({os.getpid()}) is a fork of the one that launched the session ({self._process}), which alone can use it",
                hint="Launch a session in this process, or use the parent's there.",
            )

    def do(self, work: Callable[[Errand[Made]], Made]) -> Made:
        """Run a function on the courier's thread, and return its result."""
        errand = Errand(work)
        self.wait(errand)
        return errand.result()

    def post(self, work: Callable[[Errand[Made]], Made]) -> None:
        """Queue a function on the courier's thread without waiting for it."""
        self._errands.put(Errand(work))  # type: ignore[arg-type]

    @property
    def awaited(self) -> bool:
        """Whether errands wait for the one that is under way."""
        return not self._errands.empty()

    def wait(self, errand: Errand[Made], ready: Callable[[], bool] = lambda: False) -> None:
        """Give the courier an errand, if it does not have it, and wait until it is done or `ready`, of which it rings.

        Raises RankError if the session is closed first.
        """
        self.require_own_process()
        if self.here:
            errand.do()
            return
        try:
            errand.abandoned = False
            if not errand.given:
                self._errands.put(errand)  # type: ignore[arg-type]
                errand.given = True  # if an interruption comes first, it is given twice, and done once
            while not ready() and not errand.wait(TICK_S):
                if not self._thread.is_alive():
                    raise RankError("the session was closed", hint="Launch it again.")
        except BaseException:
            errand.abandoned = True
            raise

    def close(self, limit_s: float) -> None:
        """End the thread after the errands that it already has. An errand may call this."""
        self._errands.put(None)
        if not self.here:
            self._thread.join(limit_s)


def _run(errands: SimpleQueue[Errand[object] | None]) -> None:
    """The loop of the thread. It refers neither to the courier nor to finished errands, so a dropped session can be collected."""
    while (errand := errands.get()) is not None:
        errand.do()
        del errand
