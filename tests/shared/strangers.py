"""Strangers at the doors of running sessions: `strangers.py --seed 7 --count 5000 [--backends numpy,torch]`, which is
`make strangers`. It needs root, to be somebody else, and `ip` (iproute2) for a linked network.

For each backend a session of two ranks works all the while. Two strangers try to read, write, join or disturb it: another
user of this host, who sees what any user sees of its folder and processes; and somebody in another network namespace, which
a cable links to this one, as it is from container to host. Each try is drawn from the seed. None may get anywhere, and the
session must go on giving the right result. The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from zoo import listeners

from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backends
from unitp.plugins.transports import native, usable
from unitp.ranks.processes import marked
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import tiny

NOBODY = 65534
PTRACE_ATTACH = 16
PATIENCE_S = 0.2
HERE, THERE = "198.18.213.1", "198.18.213.2"
"""Ends of the cable: addresses for tests of networks (RFC 2544)."""
FILES = ("environ", "mem", "maps", "fd/0", "root/etc/shadow", "cwd/key", "ns/net", "ns/user")


class Doors(NamedTuple):
    """What a session has that somebody could try to come in by."""

    folder: Path
    pids: tuple[int, ...]
    ports: tuple[int, ...]
    names: tuple[str, ...]


def doors(session: Session) -> Doors:
    """Those of a running session."""
    folder = session.cluster.folder
    supervisor = session.cluster.supervisor
    assert supervisor is not None
    pids = (*marked(session.cluster.mark), supervisor.member.process.pid)
    at = {one for pid in pids for one in listeners(pid)}
    ports = tuple(sorted({port for _, port in at if port}))
    names = tuple(sorted({name for name, port in at if not port}))
    return Doors(folder, pids, ports, names)


def open_doors(session: Session) -> set[tuple[str, int]]:
    """Where processes of a session listen in this process's network namespace, or any that others reach."""
    own = os.readlink("/proc/self/ns/net")
    return {at for pid in doors(session).pids if os.readlink(f"/proc/{pid}/ns/net") == own for at in listeners(pid)}


def tries_of_a_user(at: Doors, rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """What another user of this host may try, without end."""
    names = ("key", "driver.sock", "driver.arrays", "rank0.page", "rank0.log", "of a stranger")
    over_network = tries_of_a_network(at, rng, "127.0.0.1")
    while True:
        if rng.random() < 0.4:
            yield next(over_network)
            continue
        file, pid = at.folder / rng.choice(names), rng.choice(at.pids)
        theirs = Path(f"/proc/{pid}/{rng.choice(FILES)}")
        number = rng.choice((0, signal.SIGCONT, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL))
        abstract = rng.choice((*at.names, "@of a stranger"))
        yield rng.choice(
            (
                (f"list {at.folder}", lambda: os.listdir(at.folder)),
                (f"read {file}", lambda file=file: file.read_bytes()),
                (f"write {file}", lambda file=file: file.write_bytes(b"x")),
                (f"remove {file}", lambda file=file: file.unlink()),
                (f"connect to {file}", lambda file=file: connect(socket.AF_UNIX, os.fspath(file))),
                (f"connect to {abstract}", lambda name=abstract: connect(socket.AF_UNIX, f"\0{name[1:]}")),
                (f"read {theirs}", lambda theirs=theirs: theirs.open("rb").read(1)),
                (f"write {theirs}", lambda theirs=theirs: theirs.write_bytes(b"x")),
                (f"enter the network of {pid}", lambda pid=pid: enter(pid)),
                (f"signal {number} to {pid}", lambda pid=pid, number=number: os.kill(pid, number)),
                (f"trace {pid}", lambda pid=pid: call("ptrace", PTRACE_ATTACH, pid, None, None)),
            )
        )


def tries_of_a_network(at: Doors, rng: random.Random, host: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What somebody may try who reaches this host at an address, without end."""
    while True:
        port = rng.choice(at.ports) if at.ports and rng.random() < 0.5 else rng.randrange(20000, 20010)
        says = rng.choice((b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", pickle.dumps(print), rng.randbytes(64)))
        yield f"connect to {host}:{port}", partial(connect, socket.AF_INET, (host, port), says)


def connect(family: int, address: str | tuple[str, int], says: bytes = b"") -> None:
    with socket.socket(family, socket.SOCK_STREAM) as some:
        some.settimeout(PATIENCE_S)
        some.connect(address)
        some.sendall(says)


def enter(pid: int) -> None:
    with open(f"/proc/{pid}/ns/net") as namespace:
        call("setns", namespace.fileno(), 0)


def call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def turned_away(tries: Iterator[tuple[str, Callable[[], object]]], count: int) -> list[str]:
    """What of the first tries was not refused."""
    got_in = []
    for _ in range(count):
        what, attempt = next(tries)
        with suppress(OSError):
            attempt()
            got_in.append(what)
    return got_in


def elsewhere(work: Callable[[], list[str]], *, namespace: str = "") -> list[str]:
    """What `work` returns in a process of another user, who may be in another network namespace."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            if namespace:
                with open(namespace) as there:
                    call("setns", there.fileno(), 0)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = work()[:100]
        except (OSError, ValueError):
            answer = [traceback.format_exc()]
        with open(write, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        said: list[str] = json.load(pipe)
    os.waitpid(child, 0)
    return said


@contextmanager
def cable() -> Iterator[str]:
    """A network namespace that is linked to this one: its file."""
    name = f"unitp-{uuid.uuid4().hex[:8]}"
    near, far = f"u{name[-6:]}a", f"u{name[-6:]}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", f"{HERE}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{THERE}/30", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def over_every_transport() -> list[str]:
    """Every backend over its own transport, and over the others that it can use: `torch`, `torch/mpi`."""
    return [
        name if transport == native(spec) else f"{name}/{transport}"
        for name, spec in sorted(backends().items())
        for transport in sorted(usable(spec), key=lambda one: one != native(spec))
    ]


def besiege(backend: str, count: int, seed: int, *, network: str = "", isolation: str = "require") -> list[str]:
    """What strangers achieved against a session of this backend (`torch/mpi`: over that transport), in so many tries of each."""
    name, _, transport = backend.partition("/")
    graph = tiny(max_context=128).graph
    prompt = np.arange(1, 9)[None]
    done = threading.Event()
    decided = plan(Request(graph, Mesh(tp=2)))
    with launch(graph, decided, name, isolation=isolation, transport=transport or "native") as session:
        wanted = session.run(input_ids=prompt)["logits"]
        wrong: list[str] = []

        def work() -> None:
            while not done.is_set():
                if not np.array_equal(session.run(input_ids=prompt)["logits"], wanted):
                    wrong.append("a result was disturbed")

        at, rng = doors(session), random.Random(f"{seed} {backend}")
        worker = threading.Thread(target=work)
        worker.start()
        try:
            found = [f"open: {where}" for where in sorted(open_doors(session))]
            if count:
                found += elsewhere(lambda: turned_away(tries_of_a_user(at, rng), count))
            if count and network:
                found += elsewhere(lambda: turned_away(tries_of_a_network(at, rng, HERE), count), namespace=network)
        finally:
            done.set()
            worker.join()
        return found + wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--isolation", default="require")
    parser.add_argument("--backends", default=",".join(over_every_transport()))
    given = parser.parse_args()
    failed = False
    with cable() as network:
        # the cable can be reached: what listens on every interface of this host is let in by it
        with socket.create_server(("0.0.0.0", 0)) as server:
            port = server.getsockname()[1]
            reached = [("", lambda: connect(socket.AF_INET, (HERE, port)))]
            assert elsewhere(lambda: turned_away(iter(reached), 1), namespace=network) == [""]
        for backend in given.backends.split(","):
            found = besiege(backend, given.count, given.seed, network=network, isolation=given.isolation)
            failed |= bool(found)
            print(
                f"{backend:10} {given.count} tries of a user, {given.count} over a network: {len(found)} got anywhere"
            )
            print("".join(f"  {what}\n" for what in found), end="", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
