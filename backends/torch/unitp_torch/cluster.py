"""How the ranks start: one process for each, and a store on a free loopback port at which they meet."""

from __future__ import annotations

from collections.abc import Callable

from unitp.mesh import Mesh
from unitp.plugins.spec import Process


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    if mesh.size == 1:
        return [Process("worker", (0,))]
    port = str(free_port())
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "TP_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(mesh.size),
    }
    return [Process("worker", (rank,), env={**shared, "RANK": str(rank)}) for rank in range(mesh.size)]
