"""A KVStore server runs nothing that it is sent: MXNet's own unpickles the body of a command, which can be any code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from unitp_mxnet import SPEC
from unitp_mxnet.cluster import processes

from unitp.mesh import Mesh
from unitp.ranks.isolation import isolate
from unitp.session.launch import Ports

pytestmark = pytest.mark.system

OURS = "from unitp_mxnet.server import serve; serve()"
THEIRS = "import numpy; numpy.bool = bool; import mxnet"
WORKER = """
import os, sys
from unitp_mxnet.operators import mx
class Code:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)
import pickle
store = mx.kv.create("dist_sync")
store._send_command_to_servers(0, pickle.dumps(Code(), 0).decode())
store.init(0, mx.nd.zeros((2,)))
out = mx.nd.array([1.0, 2.0])
store.pushpull(0, out, out=out)
print(out.asnumpy().tolist())
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("server", "runs"), [(OURS, False), (THEIRS, True)], ids=["unitp", "MXNet's own"])
def test_a_command_to_a_server_is_not_unpickled(server: str, runs: bool, tmp_path: Path) -> None:
    isolation = isolate("require", sys.executable)
    mark, codes = tmp_path / "it ran", {"scheduler": server, "server": server, "worker": WORKER}
    started = {}
    for process in processes(Mesh(tp=2), Ports(alone=True).next)[:3]:
        own = SPEC.variables if process.role == "worker" else {}
        environment = {**os.environ, **own, **process.env, "DMLC_NUM_WORKER": "1"}
        line = isolation.inside([sys.executable, "-W", "ignore", "-c", codes[process.role], str(mark)])
        started[process.role] = subprocess.Popen(
            line,
            env=environment,
            pass_fds=isolation.descriptors,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    isolation.close()
    try:
        said, error = started["worker"].communicate(timeout=40)
    finally:
        for one in started.values():
            one.kill()
            one.communicate()
    assert mark.exists() == runs
    if not runs:
        assert said.strip() == "[1.0, 2.0]", error
