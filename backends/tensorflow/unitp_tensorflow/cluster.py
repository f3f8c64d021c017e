"""How the ranks start: one process each, which read of each other in TF_CONFIG, on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable

from unitp.mesh import Mesh
from unitp.plugins.spec import Process


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    if mesh.size == 1:
        return [Process("worker", (0,))]
    workers = [f"127.0.0.1:{free_port()}" for _ in range(mesh.size)]
    found = []
    for rank in range(mesh.size):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        found.append(Process("worker", (rank,), env={"TF_CONFIG": json.dumps(config), "no_grpc_proxy": "127.0.0.1"}))
    return found
