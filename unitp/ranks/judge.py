"""What is wrong with the processes of a session, if anything: the judgement of the watchdog, without its thread.

    dead      a watched process is gone or a zombie in /proc                    at once
    stopped   its state in /proc stays T                                        `STOPPED_S`
    failed    a rank sent its exception, and nobody died within `GRACE_S`       0.7 s
    silent    the heartbeat thread of a ready rank has stopped                  `Limits.heartbeat_s`
    stuck     no rank makes progress, and a rank that is furthest behind uses   `Limits.stall_s`
              no processor time (if all of those compute: ten times the limit)
    late      start-up takes longer than the backend allows                     `Limits.start_s`

One death causes others: a launcher takes its ranks along, and ends them all when one dies. So all deaths within
`SETTLE_S` are taken together, in the order in which they happened (`Endings` knows it), and the error names one: a launcher
that was killed, since no process of a session kills it; else the first process that was killed; else the first of all. A
death counts before an exception, because peers raise when a connection breaks.

Everything may be frozen and resumed (a laptop's lid, a cgroup's freezer, SIGSTOP), and the watchdog may get no processor.
So time limits use a clock of their own, `_clock`, which advances by at most `STEP_S` from one look to the next: time that
nobody watched does not count. After a step of more than `GAP_S` the others get `THAW_S` to resume, too. Importing a
framework on a busy machine silences a heartbeat for many seconds, so until all ranks are ready only the start limit
counts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import unitp.errors
from unitp.errors import RankError, UnitpError
from unitp.host import remedy
from unitp.ranks.endings import Endings
from unitp.ranks.folder import SHARED_MEMORY, room
from unitp.ranks.limits import Limits
from unitp.ranks.member import Member
from unitp.ranks.processes import Seen, look, marked
from unitp.ranks.progress import Page
from unitp.ranks.serve import NO_MEMORY
from unitp.wire.messages import Failed

GRACE_S = 0.7
SETTLE_S = 0.1
STEP_S = 1.0
GAP_S = 0.5
STOPPED_S = 2.0
THAW_S = 4.0
IDLE_SHARE = 0.1
PATIENCE = 10


class Watched(NamedTuple):
    """A process under watch. `member` is set if the driver started it itself."""

    name: str
    seen: Seen
    member: Member | None
    launcher: bool


class Judge:
    """Says on each `look` what is wrong. `pages` are by process name; `place(name)` says what a process is doing.

    `now()` gives the time in seconds, from any zero on. Processes are found by the session's `mark` until all ranks are ready.
    """

    def __init__(
        self,
        mark: str,
        members: list[Member],
        pages: Mapping[str, Page],
        ranks: int,
        limits: Limits,
        place: Callable[[str], str],
        endings: Endings,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mark, self.members, self.pages, self.limits = mark, members, pages, limits
        self.supervisor: Member | None = None
        self.expected = {f"rank {rank}" for rank in range(ranks)}
        self.place = place
        self.starting = True
        self._busy = False
        self._endings = endings
        self._watched: dict[int, Watched] = {}
        self._reports: list[tuple[float, str, Failed | None]] = []
        self._time, self._looked, self._clock = now, now(), 0.0
        self._moved, self._thawed = 0.0, -THAW_S
        self._beats: dict[str, tuple[int, float]] = {}
        self._halted: dict[int, float] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._now: dict[str, Seen] = {}
        self._then: dict[str, Seen] = {}

    def started(self) -> None:
        """All ranks are ready: from now on no new processes are looked for, and start-up is no longer timed."""
        self.starting = False

    def working(self, busy: bool) -> None:
        """Set whether requests are under way, on which the ranks should make progress."""
        self._moved = self._clock
        self._busy = busy

    def hear(self, name: str, failed: Failed | None) -> None:
        """Note that the connection of a process broke (None) or that it sent an exception."""
        self._reports.append((self._clock, name, failed))

    def look(self) -> UnitpError | None:
        """Look at all processes. Returns the error of what is wrong now, or None."""
        now = self._time()
        step, self._looked = now - self._looked, now
        self._clock += min(step, STEP_S)
        if step > GAP_S:
            self._thawed = self._clock
        if self.starting:
            self._look_around()
        return self._gone() or self._told() or self._silent() or self._stuck() or self._late()

    def _look_around(self) -> None:
        """Put all workers and the launchers above them under watch. A fork may have become another program."""
        found = marked(self.mark)
        direct = {member.process.pid: member for member in self.members}
        for member in (*self.members, *filter(None, [self.supervisor])):
            if member.process.pid not in self._watched and (seen := look(member.process.pid)):
                self._watch(Watched(member.name, seen, member, member.role == "launcher"))
        for one in sorted(found.values(), key=lambda one: one.seen.started):
            above = self._watched.get(one.seen.parent)
            if one.seen.pid in direct or (above is not None and not above.launcher):
                continue
            if one.worker and one.number is not None:
                self._watch(Watched(f"rank {one.number}", one.seen, None, False))
            elif above is not None and not one.worker:
                self._watch(Watched(one.seen.command, one.seen, None, True))

    def _watch(self, one: Watched) -> None:
        if self._endings.watch(one.seen.pid):  # else it has just ended, and whoever started it tells more
            self._watched[one.seen.pid] = one

    # what can be wrong

    def _gone(self) -> RankError | None:
        """The error of a process that is dead or stopped, or None."""
        dead: dict[int, tuple[Watched, int | None]] = {}
        stopped = self._look_at_all(dead)
        if dead:
            time.sleep(SETTLE_S)
            self._endings.wait(0.0)
            self._look_at_all(dead)
            one, code = min(
                (dead[pid] for pid in dict.fromkeys((*self._endings.order, *dead)) if pid in dead), key=_consequence
            )
            unseen = self._unseen(one) if self.starting else ""
            log = code is None or code >= 0 or code == -signal.SIGABRT
            return self._error(one, how_it_ended(code), unseen, log=log, hint=self._lacking(code))
        return self._error(stopped, "is stopped (SIGSTOP)") if stopped else None

    def _look_at_all(self, dead: dict[int, tuple[Watched, int | None]]) -> Watched | None:
        """Record dead processes, with the exit code while the zombie still has it. Returns one that stays stopped."""
        stopped, limit = None, STOPPED_S + (THAW_S if self._clock - self._thawed < THAW_S else 0.0)
        for pid, one in self._watched.items():
            if pid in dead:
                continue
            now = look(pid)
            if now is None or not now.alive or now.started != one.seen.started:
                dead[pid] = one, _exit_code(one, now)
            elif not now.stopped:
                self._now[one.name] = now
                self._halted.pop(pid, None)
            elif self._clock - self._halted.setdefault(pid, self._clock) >= limit:
                stopped = stopped or one
        return stopped

    def _told(self) -> UnitpError | None:
        """The error of a rank that sent an exception, or whose connection broke though it lives.

        Deaths within the grace period come first.
        """
        if not self._reports or self._clock - self._reports[0][0] < GRACE_S:
            return None
        _, name, failed = self._reports[0]
        if failed is None:
            return RankError(f"{name} closed its connection while {self.place(name)}")
        known = getattr(unitp.errors, failed.kind, None)
        if isinstance(known, type) and issubclass(known, UnitpError):
            where = "" if failed.message.startswith(name) else f"{name}: "
            error: UnitpError = known(f"{where}{failed.message}", hint=failed.hint)
        else:
            error = RankError(
                f"{name} raised {failed.kind} while {self.place(name)}: {failed.message}", hint=failed.hint
            )
        error.add_note(failed.trace)
        return error

    def _silent(self) -> RankError | None:
        for one in () if self.starting else self._watched.values():
            if one.name not in self.pages:
                continue
            beat = self.pages[one.name].heartbeat
            last, since = self._beats.setdefault(one.name, (beat, self._clock))
            if last != beat:
                self._beats[one.name] = beat, self._clock
            elif self._clock - since > self.limits.heartbeat_s:
                return self._error(one, f"has given no sign of life for {self._clock - since:.0f} s")
        return None

    def _stuck(self) -> RankError | None:
        """The error if no rank makes progress. Of the ranks furthest behind, one that does not compute blocks the others."""
        places = {name: page.place for name, page in self.pages.items() if name in self.expected}
        if places != self._places or not self._busy:
            self._places, self._moved, self._then = places, self._clock, dict(self._now)
        waited = self._clock - self._moved
        if waited < self.limits.stall_s:
            return None
        last = [name for name in sorted(places) if places[name] == min(places.values())]
        idle = [name for name in last if self._used(name) < IDLE_SHARE * waited]
        if not idle and waited < PATIENCE * self.limits.stall_s:
            return None
        name = (idle or last)[0]
        return RankError(
            f"{name} has made no progress for {waited:.0f} s while {self.place(name)}",
            hint="If the work is that long, raise the stall limit.",
        )

    def _used(self, name: str) -> float:
        """The seconds of processor time since the last progress."""
        return self._now[name].cpu_s - self._then[name].cpu_s if name in self._then else 0.0

    def _late(self) -> RankError | None:
        if not self.starting:
            return None
        waited, limit = self._clock, self.limits.start_s
        if waited > self.limits.missing_s and (absent := self.expected - {one.name for one in self._watched.values()}):
            launchers = sorted({f"{one.name} (process {pid})" for pid, one in self._watched.items() if one.launcher})
            by = f" by {' or '.join(launchers)}" if launchers else ""
            return RankError(
                f"{min(absent)} ended during start-up, before it could report, or was never started{by}{self._logs()}"
            )
        if limit is not None and waited > limit:
            doing = "; ".join(f"{name}: {self.place(name)}" for name in sorted(self.expected))
            return RankError(
                f"the session did not start within {limit:.0f} s ({doing}){self._logs()}",
                hint="On a busy machine, raise the start limit.",
            )
        return None

    # words

    def _error(self, one: Watched, what: str, more: str = "", *, log: bool = False, hint: str = "") -> RankError:
        tail = "" if not log else one.member.tail() if one.member else self._logs()
        return RankError(f"{one.name} (process {one.seen.pid}) {what} while {self._doing(one)}{more}{tail}", hint=hint)

    def _lacking(self, code: int | None) -> str:
        """What the host may have lacked and how to mend it.

        That is room for a page of a mapped file (a bus error), or what the logs say.
        """
        logs = self._logs()
        if code == -signal.SIGBUS or "Bus error" in logs:  # the latter is how MPICH tells it
            places = room([SHARED_MEMORY, *{log.parent for member in self.members for log in member.logs}])
            return f"A file in memory had no room to grow: {places}. Free some, or give it more (docker run --shm-size=256m)."
        return remedy(logs)

    def _unseen(self, one: Watched) -> str:
        """Processes that may have ended so soon after their start that they never came under watch."""
        watched = self._watched.values()
        absent = sorted(self.expected - {other.name for other in watched})
        if one.member is None and one.seen.parent not in self._watched:
            absent += [
                f"what started {one.name} for {other.name}" for other in watched if other.launcher and other.member
            ]
        return f"; never seen alive, so it may have ended before: {', '.join(absent)}" if absent else ""

    def _doing(self, one: Watched) -> str:
        """What a process is doing, in words; for a launcher, what its ranks are doing."""
        if one.member is not None and one.member is self.supervisor:
            return "watching over the driver"
        if not one.launcher:
            return self.place(one.name)
        return "; ".join(f"{name} was {self.place(name)}" for name in sorted(self.expected))

    def _logs(self) -> str:
        return "".join(member.tail() for member in self.members)


def _exit_code(one: Watched, now: Seen | None) -> int | None:
    """The exit code (or minus the signal) of a dead process, as far as it is known for another process's child."""
    if one.member is not None:
        return one.member.exit_code()
    if now is None or now.started != one.seen.started:
        return None
    return os.waitstatus_to_exitcode(now.status)


def _consequence(death: tuple[Watched, int | None]) -> int:
    """A sort key of deaths by how likely another death caused them. Of equal ones the first stays first.

    Nobody in a session kills the launcher that the driver started, and a killed process does not end by itself.
    """
    one, code = death
    if one.launcher and one.member is not None and code is not None and code < 0:
        return 0
    return 1 if code is None or code < 0 else 2


def how_it_ended(code: int | None) -> str:
    """The words for an exit code as subprocess gives it: negative for a signal, None where the code is not known."""
    if code is None:
        return "was killed, or ended by itself"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    if code == NO_MEMORY:
        return "ran out of memory (not even a report was possible)"
    return f"ended by itself (exit code {code})"
