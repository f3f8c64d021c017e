"""The door of a session: processes connect to its socket and prove who they are. Strangers are refused."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from typing import NamedTuple

from unitp.wire.channel import Channel, WireError, for_driver
from unitp.wire.greeting import Guest
from unitp.wire.messages import Reply


class Arrival(NamedTuple):
    """A process of the session, known by name, and the connection to it."""

    name: str
    channel: Channel[Reply]


class Reception:
    """Whoever connects to `listener` and is not known yet. `missing`: the names of the processes that have not come."""

    def __init__(self, listener: socket.socket, key: bytes, poller: select.poll, names: Iterable[str]) -> None:
        self.missing = set(names)
        self._listener, self._key, self._poller = listener, key, poller
        self._guests: dict[int, Guest] = {}
        poller.register(listener, select.POLLIN)

    def answer(self, fd: int) -> Arrival | None:
        """Attend to a descriptor that can be read: the listener's or a guest's. Returns a process that has proven who it is."""
        if fd != self._listener.fileno():
            return self._introduce(fd)
        guest = Guest(for_driver(self._listener.accept()[0]), self._key)
        self._guests[guest.channel.fileno()] = guest
        self._poller.register(guest.channel, select.POLLIN)
        return None

    def close(self) -> None:
        """Take no more connections, and close those of whoever has not proven anything. It may be called twice."""
        if self._listener.fileno() >= 0:
            self._poller.unregister(self._listener)
            self._listener.close()
        for fd in list(self._guests):
            self._show_out(fd)

    def _introduce(self, fd: int) -> Arrival | None:
        """Read from a new connection. A stranger's is closed, and so is that of a process that is not missing."""
        guest = self._guests[fd]
        try:
            if (hello := guest.listen()) is None:
                return None
            name = f"{'rank' if hello.role == 'worker' else hello.role} {hello.number}"
            if name not in self.missing:
                raise WireError(f"a second or unknown process says that it is {name}")
        except WireError:
            self._show_out(fd)
            return None
        self.missing.discard(name)
        return Arrival(name, self._guests.pop(fd).channel)

    def _show_out(self, fd: int) -> None:
        self._poller.unregister(fd)
        self._guests.pop(fd).channel.close()
