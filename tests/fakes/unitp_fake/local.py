"""A cluster in this process: `unitp.ranks.cluster.Cluster` as sessions see it, with workers and their messages, without
processes. `before` is called before each exchange and before each message that comes back, by the courier.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from unitp.engine.engine import Engine
from unitp.mesh import Mesh
from unitp.plugins.transports import Carrier
from unitp.ranks.cluster import require_done
from unitp.ranks.courier import Courier, Errand
from unitp.ranks.progress import Page, PageProgress
from unitp.ranks.serve import DRIVER_ARRAYS, Worker, rank_arrays
from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import HEADER, encode
from unitp.wire.messages import Reply, Request

Made = TypeVar("Made")
Heard = Callable[[int, Reply], None]


def unheard(rank: int, message: Reply) -> None:
    """Nobody listens."""


class Line:
    """As much of a channel as a worker needs to tell something before it answers."""

    def __init__(self, send: Callable[[object], object]) -> None:
        self.send = send


class LocalCluster:
    """`join(rank, mesh, progress)` makes the engine of a rank."""

    def __init__(self, mesh: Mesh, join: Callable[[int, Mesh, PageProgress], Engine]) -> None:
        self.mesh, self.carrier = mesh, Carrier("native", "this process", "")
        self.folder = Path(tempfile.mkdtemp(prefix="local-"))
        self.outbox = Outbox(self.folder / DRIVER_ARRAYS)
        self.inboxes = [Inbox(self.folder / rank_arrays(rank)) for rank in range(mesh.size)]
        self.before: Callable[[], None] = lambda: None
        self.exchanges = 0
        self.courier = Courier()
        self._requests, self._replies = msgspec.msgpack.Decoder(Request), msgspec.msgpack.Decoder(Reply)
        self._heard: Heard = unheard
        self.workers = [self._worker(rank, join) for rank in range(mesh.size)]

    def _worker(self, rank: int, join: Callable[[int, Mesh, PageProgress], Engine]) -> Worker:
        page = Page(self.folder / f"rank{rank}.page", create=True)
        progress = PageProgress(page)
        channel: Any = Line(lambda message: self._hear(rank, message))
        return Worker(rank, channel, join(rank, self.mesh, progress), page, self.folder, progress)

    def _hear(self, rank: int, message: object) -> Reply:
        self.before()
        reply: Reply = self._replies.decode(encode(message)[HEADER:])
        self._heard(rank, reply)
        return reply

    def do(self, work: Callable[[Errand[Made]], Made]) -> Made:
        return self.courier.do(work)

    def ask_all(self, message: object) -> list[Reply]:
        return list(self.do(lambda _: self.exchange(dict.fromkeys(range(self.mesh.size), message))).values())

    def exchange(self, messages: Mapping[int, object], heard: Heard | None = None) -> dict[int, Reply]:
        self.exchanges += 1
        self._heard = heard or unheard
        self.before()
        frames = {rank: m if isinstance(m, bytearray) else encode(m) for rank, m in messages.items()}
        replies = {}
        for rank, frame in frames.items():
            request = self._requests.decode(bytes(frame[HEADER:]))
            replies[rank] = self._hear(rank, self.workers[rank].carry_out(request))
        self._heard = unheard
        require_done(replies.values())
        return replies

    def close(self) -> None:
        self.courier.close(5.0)
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()
