"""A scheduler, a server and the ranks, all started directly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from unitp.mesh import Mesh
from unitp.plugins.spec import Process

FOLDER = str(Path(__file__).parents[1])


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    path = os.pathsep.join(filter(None, [FOLDER, os.environ.get("PYTHONPATH", "")]))
    env = {"PYTHONPATH": path, "FAKE_PORT": str(free_port())}
    serving = [Process(role, (), env={**env, "FAKE_SERVES": "1"}) for role in ("scheduler", "server")]
    return [*serving, *(Process("worker", (rank,), env=env) for rank in range(mesh.size))]
