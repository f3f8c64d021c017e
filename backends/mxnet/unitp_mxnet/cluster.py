"""How the ranks start: a scheduler, a server for every mesh axis that ranks talk along, and the ranks.

A KVStore server answers when it was asked as often as its own DMLC_NUM_WORKER says. The server of an axis is told the
size of that axis's groups, so that each group is answered by itself. Ranks and servers are numbered by ascending PORT.
"""

from __future__ import annotations

from collections.abc import Callable

from unitp.mesh import Mesh
from unitp.plugins.spec import Process

HOST = "127.0.0.1"

COMMON = {"MXNET_STORAGE_FALLBACK_LOG_VERBOSE": "0", "MXNET_SUBGRAPH_VERBOSE": "0"}
"""What workers, servers and the scheduler find in their environment."""


def processes(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    axes = server_axes(mesh)
    if not axes:
        return [Process("worker", (0,))]
    root = free_port()
    ports = sorted(free_port() for _ in range(len(axes) + mesh.size))
    shared = {
        **COMMON,
        "DMLC_PS_ROOT_URI": HOST,
        "DMLC_PS_ROOT_PORT": str(root),
        "DMLC_NODE_HOST": HOST,
        "DMLC_NUM_SERVER": str(len(axes)),
        "DMLC_NUM_WORKER": str(mesh.size),
        "MXNET_KVSTORE_BIGARRAY_BOUND": str(2**30),  # no array is spread over several servers
    }
    started = [Process("scheduler", (), env={**shared, "DMLC_ROLE": "scheduler"})]
    for axis, port in zip(axes, ports, strict=False):
        group = {"DMLC_NUM_WORKER": str(mesh.axis_size(axis)), "PORT": str(port)}
        started.append(Process("server", (), env={**shared, **group, "DMLC_ROLE": "server"}))
    for rank, port in enumerate(ports[len(axes) :]):
        started.append(Process("worker", (rank,), env={**shared, "PORT": str(port)}))
    return started


def server_axes(mesh: Mesh) -> list[str]:
    """The axes that have a server, in its order."""
    return [axis for axis, size in mesh.axes if size > 1]
