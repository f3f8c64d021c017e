"""A thread of the driver that turns a dead, stopped, failed, silent or stuck process of a session into one error, and ends the rest.

`judge.py` says what is wrong; this thread looks when a process ends, when the driver has something to report, and every
`TICK_S`. So a death is an error after about 0.1 s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from unitp.errors import RankError, UnitpError, with_hint
from unitp.host import host_error
from unitp.ranks.endings import Endings
from unitp.ranks.judge import Judge
from unitp.ranks.limits import Limits
from unitp.ranks.member import Member
from unitp.ranks.processes import end_all
from unitp.ranks.progress import Page
from unitp.wire.messages import Failed

TICK_S = 0.1
STARTING_TICK_S = 0.05


class Watchdog:
    """A thread that watches from `start` to `stop`. `error` is what was wrong, from the moment on that `failed` is set."""

    def __init__(
        self,
        mark: str,
        members: list[Member],
        pages: Mapping[str, Page],
        ranks: int,
        limits: Limits,
        place: Callable[[str], str],
    ) -> None:
        self.mark, self.members = mark, members
        self.error: UnitpError | None = None
        self.failed = threading.Event()
        self._endings = Endings()
        self.judge = Judge(mark, members, pages, ranks, limits, place, self._endings)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="unitp watchdog", daemon=True)

    # what the driver's main thread calls

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def report(self, name: str, failed: Failed | None) -> UnitpError:
        """Report that the connection of a process broke (None) or that it sent an exception.

        Returns the error, after all processes have ended.
        """
        self.judge.hear(name, failed)
        if not self._stopping:
            self._endings.wake()
            self.failed.wait()
        return self.error or RankError("the session was closed", hint="Launch it again.")

    def stop(self) -> None:
        """Stop watching. It waits for an error that is being made."""
        self._stopping = True
        self._endings.wake()
        if self._thread.is_alive():
            self._thread.join()
        self.failed.set()  # nobody waits for more
        self._endings.close()

    def abandon(self) -> None:
        """Close what a fork of the driver inherited. The thread does not run there."""
        self._endings.close()

    # the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._endings.wait(STARTING_TICK_S if self.judge.starting else TICK_S)
                error = self.judge.look()
                if error is not None:
                    self._end(error)
                    return
        except OSError as error:
            self._end(host_error(error, "the watchdog"))
        except BaseException as error:
            self._end(RankError(f"the watchdog failed: {error!r}", hint="This is a fault of unitp: please report it."))
            raise

    def _end(self, error: UnitpError) -> None:
        left = end_all(self.mark)
        for member in self.members:
            member.reap()
        if left:
            names = ", ".join(f"{seen.command} (process {seen.pid})" for seen in left)
            hint = f"{error.hint} unitp could not end {names}: end them yourself.".lstrip()
            error = with_hint(error, hint)
        self.error = error
        self.failed.set()
