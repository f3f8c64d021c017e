"""The processes of a session, from the driver's side: it starts and connects them, sends requests, and ends them all.

Once the ranks are ready, only the courier talks to them. Requests go to all ranks concerned before any reply is awaited,
and replies are read as they come. Whatever fails (a broken connection, an exception in a rank, a report of the watchdog),
`exchange` raises as one error, after every process has ended. If ranks refuse a request in step (`Refused`), they stay
ready for the next one.

A fork of the driver closes at once what it inherited of a session (`abandon`). So a connection ends with the driver,
however long its children live, and a child that ends does not end the session of its parent.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import TypeVar

from unitp.errors import InputError, RankError, UnitpError
from unitp.mesh import Mesh
from unitp.plugins import discover
from unitp.plugins.spec import BackendSpec, Process
from unitp.plugins.transports import NATIVE, Carrier, choose
from unitp.ranks.courier import Courier, Errand
from unitp.ranks.folder import new_folder
from unitp.ranks.isolation import Isolation
from unitp.ranks.leftovers import Leftovers
from unitp.ranks.limits import Limits
from unitp.ranks.logs import Forwarder
from unitp.ranks.member import Member, no_forks
from unitp.ranks.progress import Page
from unitp.ranks.reception import Reception
from unitp.ranks.serve import DRIVER_ARRAYS, rank_arrays
from unitp.ranks.start_process import names_of, start
from unitp.ranks.supervisor import Supervisor
from unitp.ranks.watchdog import Watchdog
from unitp.ranks.worker_command import command
from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import Channel, WireError, encode
from unitp.wire.greeting import SOCKET, new_key
from unitp.wire.messages import Close, Failed, Refused, Reply, Start, Told

BACKLOG = 128
CLOSE_S = 5.0
LEAVE_S = 2.0
TICK_MS = 500

Made = TypeVar("Made")


class Cluster:
    """All processes of one session: `start` them, send requests, `close`. `place(name)` says in words what a process is doing."""

    def __init__(
        self,
        mesh: Mesh,
        spec: BackendSpec,
        limits: Limits,
        place: Callable[[str], str],
        carrier: Carrier | None = None,
        *,
        verbose: bool = False,
    ) -> None:
        """`carrier`: the transport of these ranks (default: one rank is alone)."""
        self.mesh, self.spec, self.limits = mesh, spec, limits
        self.carrier = carrier or choose(spec, NATIVE, 1, "", lambda transport: [])
        self.mark = secrets.token_hex(16)
        began = time.time()
        self.folder = new_folder()
        self.leftovers = Leftovers(self.mark, str(self.folder), began, self.carrier.segments)
        self.supervisor: Supervisor | None = None
        self.members: list[Member] = []
        self.pages: dict[str, Page] = {}
        self.outbox = Outbox(self.folder / DRIVER_ARRAYS)
        self.inboxes = [Inbox(self.folder / rank_arrays(rank)) for rank in range(mesh.size)]
        try:
            self.watchdog = Watchdog(self.mark, self.members, self.pages, mesh.size, limits, place)
        except OSError:
            self.folder.rmdir()
            raise
        self.forwarder = Forwarder() if verbose else None
        self._listener: socket.socket | None = None
        self._channels: dict[str, Channel[Reply]] = {}
        self._door: Reception | None = None
        self._names: dict[int, str] = {}
        self._poller = select.poll()
        self._waiting: set[str] = set()
        self._replies: dict[str, Reply] = {}
        self._heard: Callable[[int, Reply], None] | None = None
        self.isolated = self._closing = self._closed = False
        self._driver = os.getpid()
        self._courier: Courier | None = None
        _clusters.add(self)

    # start

    def start(self, processes: Iterable[Process], isolation: Isolation, threads: int) -> None:
        """Start the processes, isolated where possible, and return when every rank has joined its group."""
        self.isolated = isolation.on
        key = new_key(self.folder)
        with no_forks:
            self.supervisor = Supervisor(isolation.python, self.leftovers)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.watchdog.judge.supervisor = self.supervisor.member
        with self._listener as listener:
            listener.bind(os.fspath(self.folder / SOCKET))
            listener.listen(BACKLOG)
            counts: dict[str, int] = {}
            for process in processes:
                number = counts.setdefault(process.role, 0)
                counts[process.role] += 1
                self._launch(process, number, isolation, threads)
            self.watchdog.start()
            if self.forwarder is not None:
                self.forwarder.start({log.stem: log for member in self.members for log in member.logs})
            self._accept(listener, key, isolation)
        self._collect()
        self.watchdog.judge.started()
        self._courier = Courier()

    def _launch(self, process: Process, number: int, isolation: Isolation, threads: int) -> None:
        """Start one process, with a progress page for it or for each of its ranks."""
        names = names_of(process, number)
        for file, page in zip(names.files, names.pages, strict=True):
            self.pages[page] = Page(self.folder / f"{file}.page", create=True)
        worker = command(
            isolation.python,
            *("--role", process.role),
            plugin=discover.plugin_of(self.spec),
            besides=self.carrier.plugin,
        )
        self.members.append(
            start(process, names, worker, isolation, folder=self.folder, mark=self.mark, threads=threads)
        )

    def _accept(self, listener: socket.socket, key: bytes, isolation: Isolation) -> None:
        """Accept connections until all processes of this session are connected. Strangers are refused."""
        plugin = self.carrier.plugin if isolation.python == sys.executable else ""
        greeting = Start(self.spec.name, self.mesh, self.carrier.name, plugin)
        door = self._door = Reception(listener, key, self._poller, self.pages)
        self._waiting = {f"rank {rank}" for rank in range(self.mesh.size)}
        while door.missing:
            for fd in self._ready():
                if fd in self._names:
                    self._read(self._names[fd])
                elif (came := door.answer(fd)) is not None:
                    self._names[fd] = came.name
                    self._channels[came.name] = came.channel
                    came.channel.send(greeting)
        door.close()

    # ask

    @property
    def courier(self) -> Courier:
        """The thread that talks to the ranks. Raises RankError if they are gone, InputError in a fork of the driver."""
        if self._courier is None or self._closing:
            raise RankError("the session was closed", hint="Launch it again.")
        self._courier.require_own_process()
        return self._courier

    def do(self, work: Callable[[Errand[Made]], Made]) -> Made:
        """Run a function on the courier's thread and return its result."""
        return self.courier.do(work)

    def ask_all(self, message: object) -> list[Reply]:
        """Send all ranks the same message, and return their replies in the order of ranks."""
        frame = encode(message)
        return self.do(lambda _: list(self.exchange(dict.fromkeys(range(self.mesh.size), frame)).values()))

    def exchange(
        self, messages: Mapping[int, object], heard: Callable[[int, Reply], None] | None = None
    ) -> dict[int, Reply]:
        """Send each rank its message (or frame) and return the replies by rank. Only the courier may call it.

        `heard` is called with what a rank tells before its reply, and with the reply, as they come. It must not raise. Raises
        InputError if ranks refuse the request; they are then ready for the next one.
        """
        if self.watchdog.error is not None:
            raise copy(self.watchdog.error)
        self._require_open()
        self._heard = heard
        try:
            replies = self._exchanged(messages)
        finally:
            self._heard = None
        require_done(replies.values())
        return {rank: replies[f"rank {rank}"] for rank in messages}

    def _exchanged(self, messages: Mapping[int, object]) -> dict[str, Reply]:
        """The replies by name."""
        self.watchdog.judge.working(True)
        frames = {f"rank {rank}": m if isinstance(m, bytearray) else encode(m) for rank, m in messages.items()}
        self._waiting.update(frames)
        for name, frame in frames.items():
            try:
                self._channels[name].send_frame(frame)
            except WireError:
                raise copy(self.watchdog.report(name, None)) from None
        return self._collect()

    def _require_open(self) -> None:
        if self._closing:
            raise RankError("the session was closed", hint="Launch it again.")

    def _collect(self) -> dict[str, Reply]:
        """The replies of all ranks that owe one."""
        while self._waiting:
            for fd in self._ready():
                self._read(self._names[fd])
        self.watchdog.judge.working(False)
        replies, self._replies = self._replies, {}
        return replies

    def _ready(self) -> list[int]:
        """Wait until a connection has something to read. Raises the watchdog's error if there is one."""
        while not (ready := self._poller.poll(TICK_MS)):
            if self.watchdog.failed.is_set() and self.watchdog.error is not None:
                raise copy(self.watchdog.error)
            self._require_open()
        return [fd for fd, _ in ready]

    def _read(self, name: str) -> None:
        """Read from a known process. Raises if its connection broke or it sent an exception."""
        channel = self._channels[name]
        try:
            channel.read()
            messages = channel.take_all()
        except WireError:
            self._require_open()
            raise copy(self.watchdog.report(name, None)) from None
        for message in messages:
            if isinstance(message, Failed):
                raise copy(self.watchdog.report(name, message))
            if not isinstance(message, Told):
                self._replies[name] = message
                self._waiting.discard(name)
            if self._heard is not None:
                self._heard(int(name.removeprefix("rank ")), message)

    # end

    def collided(self, words: Sequence[str]) -> bool:
        """Whether the output of a process has one of these words, which mean that its port was taken."""
        texts = [log.read_text(errors="replace") for member in self.members for log in member.logs if log.exists()]
        notes = getattr(self.watchdog.error, "__notes__", [])
        return any(word in text for word in words for text in (*texts, *notes, str(self.watchdog.error)))

    def close(self) -> None:
        """Let the ranks leave in order if they can, then end all processes of the session. It may be called twice.

        No process is left, even if this is interrupted. A fork of the driver does not end the session of its parent.
        """
        if self._closed or os.getpid() != self._driver:
            return
        self._closed = self._closing = True
        try:
            if self._courier is not None:
                self._courier.close(limit_s=2 * TICK_MS / 1000)
            self.watchdog.stop()
            if self.watchdog.error is None and not self._waiting:
                self._say_goodbye()
            if self.forwarder is not None:
                self.forwarder.stop()  # before the connections: processes that notice their end remove the folder
        finally:
            try:
                self._end()
            finally:
                if self.supervisor is not None:
                    self.supervisor.let_go()  # had that been interrupted, the supervisor would do the rest

    def _end(self) -> None:
        """Close the connections, give processes a moment to end, and remove what is left."""
        self._close_channels()
        deadline = time.monotonic() + LEAVE_S
        while any(m.process.poll() is None for m in self.members) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.leftovers.clear()
        for member in self.members:
            member.reap()
        if self.supervisor is not None:
            self.supervisor.dismiss()

    def _close_channels(self) -> None:
        for channel in self._channels.values():
            channel.close()
        if self._door is not None:
            self._door.close()

    def abandon(self) -> None:
        """Close what a fork of the driver inherited. The session belongs to its parent."""
        if self._listener is not None:
            self._listener.close()
        self._close_channels()
        for page in self.pages.values():
            page.close()
        if self.supervisor is not None:
            self.supervisor.let_go()
        self.watchdog.abandon()

    def _say_goodbye(self) -> None:
        """Ask the ranks to leave their group. Those that need more than `CLOSE_S` are killed."""
        waiting = {f"rank {rank}" for rank in range(self.mesh.size)} & set(self._channels)
        deadline = time.monotonic() + CLOSE_S
        try:
            for name in waiting:
                self._channels[name].send(Close())
            while waiting and (left := deadline - time.monotonic()) > 0:
                for fd, _ in self._poller.poll(left * 1000):
                    channel = self._channels[self._names[fd]]
                    channel.read()
                    if channel.take() is not None:
                        waiting.discard(self._names[fd])
                        self._poller.unregister(fd)  # what it sends next is the end of the connection
        except UnitpError:
            return  # somebody is gone already: the rest is ended


def require_done(replies: Iterable[Reply]) -> None:
    """Raise InputError if ranks have refused a request: the first of what they say."""
    if refused := [reply for reply in replies if isinstance(reply, Refused)]:
        first = min(refused, key=lambda reply: reply.order)
        raise InputError(first.message, hint=first.hint)


_clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _abandon_all() -> None:
    for cluster in _clusters:
        cluster.abandon()


os.register_at_fork(after_in_child=_abandon_all)
