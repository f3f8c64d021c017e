"""Nothing outside a session reaches what its processes listen at."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from strangers import besiege, open_doors, over_every_transport

from unitp.errors import HostError, IsolationWarning
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.ranks.isolation import Isolation, isolate
from unitp.session.launch import launch
from unitp.testing.models import tiny

pytestmark = pytest.mark.system

TRIES = 100 if os.getuid() == 0 else 0
"""Only root can be somebody else."""

LISTEN = """
import socket, sys
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], [name for _, name in socket.if_nameindex()], flush=True)
sys.stdin.read()
"""
UNPRIVILEGED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 21)  # PR_CAPBSET_DROP, CAP_SYS_ADMIN
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
ISOLATE = """
import subprocess, sys
from unitp.ranks.isolation import isolate
found = isolate("require", sys.executable)
show = ["/bin/sh", "-c", "readlink /proc/self/ns/user /proc/self/ns/net; id -u; cat /proc/net/dev"]
print(subprocess.run(found.inside(show), pass_fds=found.descriptors, capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.full if "/" in name and name != "torch/mpi" else ())
        for name in over_every_transport()
    ],
)
def test_a_session_has_no_door_to_the_outside(backend: str) -> None:
    assert besiege(backend, TRIES, seed=7) == []


def test_a_session_that_is_not_isolated_has_one() -> None:
    """So the test above can fail."""
    found = besiege("numpy", TRIES, seed=7, isolation="off")
    assert any("0.0.0.0" in what for what in found)
    if TRIES:
        assert any("connect to 127.0.0.1" in what for what in found)


@pytest.mark.parametrize("backend", ["torch", "mxnet"])
def test_what_can_be_bound_to_loopback_is(backend: str) -> None:
    graph = tiny(max_context=128).graph
    with launch(graph, plan(Request(graph, Mesh(tp=2))), backend, isolation="off") as session:
        assert {address for address, _ in open_doors(session)} == {"127.0.0.1"}


def test_a_namespace_has_loopback_alone_and_is_not_reached() -> None:
    isolation = isolate("require", sys.executable)
    server = subprocess.Popen(
        isolation.inside([sys.executable, "-c", LISTEN]),
        pass_fds=isolation.descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server:
        port, _, interfaces = server.stdout.readline().partition(" ")
        client = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        inside = subprocess.run(isolation.inside([sys.executable, "-c", client]), pass_fds=isolation.descriptors)
        outside = subprocess.run([sys.executable, "-c", client], capture_output=True, text=True)
        server.stdin.close()
    isolation.close()
    assert interfaces.strip() == "['lo']"
    assert inside.returncode == 0
    assert "ConnectionRefusedError" in outside.stderr


def test_whoever_has_no_privileges_has_a_namespace_of_users_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, ISOLATE], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    user, network, who, *devices = done.stdout.split()
    assert user != os.readlink("/proc/self/ns/user")
    assert network != os.readlink("/proc/self/ns/net")
    assert who == str(os.getuid())
    assert [word for word in devices if word.endswith(":")] == ["lo:"]


@pytest.fixture
def refused(tmp_path: Path) -> str:
    """An interpreter that makes no namespace, as a host that allows none."""
    python = tmp_path / "python"
    script = (
        f'case "$*" in *namespace.py) echo "unshare: {os.strerror(errno.EPERM)}";; *) exec {sys.executable} "$@";; esac'
    )
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return str(python)


def test_a_host_without_namespaces_is_told_once_what_stays_open(refused: str) -> None:
    graph = tiny(max_context=128).graph
    split = plan(Request(graph, Mesh(tp=2)))
    with (
        pytest.warns(IsolationWarning, match="not isolated: .* Operation not permitted.*mpiexec listens on every"),
        launch(graph, split, "numpy", python=refused) as session,
    ):
        assert session.probe(1.5) == [3.0, 3.0]
    with pytest.raises(HostError, match=r"cannot be isolated on this host: .*\(unshare: Operation not permitted\)"):
        launch(graph, split, "numpy", python=refused, isolation="require")
    with launch(graph, plan(Request(graph, Mesh())), "numpy", python=refused):  # nothing of one rank is open
        pass


def test_nothing_is_made_where_it_is_switched_off(tmp_path: Path) -> None:
    found = isolate("off", str(tmp_path / "no python"))
    assert (found.on, found.inside(["a", "b"]), found.descriptors) == (False, ["a", "b"], ())
    assert Isolation("python").on
