"""One thread of the driver that does everything with the ranks, errand by errand; whoever wants something done waits for it.

Python runs signal handlers in the main thread, so an exception of one (Ctrl-C, a time limit) meets the waiting, never the
work: no message is cut, no state is half updated. Errands of several threads are done in the order in which they came.

    interrupted    the errand goes on without its owner; `Errand.abandoned` tells it, so that long work can stop between two
                   calls of the ranks. Who waits for it again gets its result.
    forked         the child has no such thread, and the connections are its parent's: it is refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from traceback import clear_frames
from typing import Generic, TypeVar

from unitp.errors import InputError, RankError

TICK_S = 0.5

Made = TypeVar("Made")


class Abandoned(Exception):  # noqa: N818  (no error: it ends work that nobody waits for)
    """Whoever waited for an errand was interrupted, so its work stopped between two calls of the ranks."""


class Errand(Generic[Made]):
    """Something to do, once. `abandoned`: whoever waited for it was interrupted.

    The gate is a plain lock, which no interruption can leave in between: those of Python's Event and Condition can.
    """

    def __init__(self, work: Callable[[Errand[Made]], Made]) -> None:
        self.abandoned = False
        self._work: Callable[[Errand[Made]], Made] | None = work
        self._done = self._failed = False
        self._gate = threading.Lock()
        self._gate.acquire()
        self._made: Made | None = None
        self._error: BaseException | None = None

    def do(self) -> None:
        """Do it, unless it is done: an errand may be given to the courier again."""
        if self._work is not None:
            self._try()
            self._done = True
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
        """By the work: raise Abandoned where nobody waits for it any more."""
        if self.abandoned:
            raise Abandoned

    def wait(self, limit_s: float) -> bool:
        """Wait until it is done, or for so long; returns whether it is."""
        return self._done or self._gate.acquire(timeout=limit_s)

    def result(self) -> Made:
        """What was made, or raise what the work raised: the second time (its owner was interrupted), Abandoned."""
        if self._failed:
            error, self._error = self._error or Abandoned(), None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._made  # type: ignore[return-value]  # None is what such work returns


class Courier:
    """`do` an errand and return its result; `close` when nobody comes any more."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[Errand[object] | None] = SimpleQueue()
        self._process = os.getpid()
        self._thread = threading.Thread(target=_run, args=(self._errands,), name="unitp courier", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this thread is the courier's."""
        return threading.current_thread() is self._thread

    def require_own_process(self) -> None:
        """Raise InputError in a fork of the process that launched the session."""
        if os.getpid() != self._process:
            raise InputError(
                f"this process ({os.getpid()}) is a fork of the one that launched the session ({self._process}), which alone can use it",
                hint="Launch a session in this process, or use the parent's there.",
            )

    def do(self, work: Callable[[Errand[Made]], Made]) -> Made:
        """Have something done, and wait for it."""
        errand = Errand(work)
        self.wait(errand)
        return errand.result()

    def post(self, work: Callable[[Errand[Made]], Made]) -> None:
        """Have something done after what is being done, without waiting for it."""
        self._errands.put(Errand(work))  # type: ignore[arg-type]

    def wait(self, errand: Errand[Made]) -> None:
        """Give the courier an errand (or give it again, after an interruption), and wait until it is done.

        Raises RankError where the session is closed before.
        """
        self.require_own_process()
        if self.here:
            errand.do()
            return
        try:
            errand.abandoned = False
            self._errands.put(errand)  # type: ignore[arg-type]
            while not errand.wait(TICK_S):
                if not self._thread.is_alive():
                    raise RankError("the session was closed", hint="Launch it again.")
        except BaseException:
            errand.abandoned = True
            raise

    def close(self, limit_s: float) -> None:
        """End the thread, once it has done what it was given before. It may be called by an errand."""
        self._errands.put(None)
        if not self.here:
            self._thread.join(limit_s)


def _run(errands: SimpleQueue[Errand[object] | None]) -> None:
    """The thread: it holds neither the courier nor what errands hold, so that a forgotten session can go."""
    while (errand := errands.get()) is not None:
        errand.do()
        del errand
