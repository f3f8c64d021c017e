"""A scheduler, a server and the ranks, all started directly."""

from __future__ import annotations

import signal
from collections.abc import Callable

from unitp.mesh import Mesh
from unitp.plugins.spec import Process


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    env = {"FAKE_PORT": str(free_port())}
    serving = [Process(role, (), env=env) for role in ("scheduler", "server")]
    return [*serving, *(Process("worker", (rank,), env=env) for rank in range(mesh.size))]


def serve() -> None:
    """What a process does that is not a rank."""
    signal.pause()
