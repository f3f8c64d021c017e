"""Which processes have ended, in order: epoll reports the ends of processes as they happen, however late anybody asks.

A process is watched by a descriptor of its own (pidfd), so a number that is used again means no other process. Whoever waits can
be woken.
"""

from __future__ import annotations

import os
import select


class Endings:
    """The ends of watched processes. `order` has the numbers of those that have ended, first ones first, as of the last `wait`."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self._handles: dict[int, int] = {}
        self._poller = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poller.register(self._wake, select.EPOLLIN)

    def watch(self, pid: int) -> bool:
        """Notice when this process ends. Returns False if there is no such process any more."""
        if pid not in self._handles:
            try:
                self._handles[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                return False
            self._poller.register(self._handles[pid], select.EPOLLIN)
        return True

    def wait(self, limit_s: float) -> None:
        """Wait until a process ends or `wake` is called, but at most so many seconds."""
        pids = {handle: pid for pid, handle in self._handles.items()}
        for fd, _ in self._poller.poll(limit_s):
            if fd == self._wake:
                os.eventfd_read(fd)
            else:
                self.order.append(pids[fd])
                self._poller.unregister(fd)

    def wake(self) -> None:
        """Let the thread that waits go on. Any thread may call it, also after `close`."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close all descriptors. It may be called twice."""
        self._poller.close()
        handles, self._handles = [*self._handles.values()], {}
        wake, self._wake = self._wake, -1
        for handle in (*handles, wake):
            if handle >= 0:
                os.close(handle)
