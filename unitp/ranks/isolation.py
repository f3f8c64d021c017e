"""Network isolation of a session's processes, so that nothing outside can reach them.

Servers of frameworks listen on every interface and accept everybody. So all processes of a session are started in a
network namespace of their own (`unitp.namespace`). The driver stays outside. It talks to the ranks over a Unix socket in
the session's folder, which crosses namespaces.
"""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Sequence
from os import fspath
from pathlib import Path

import unitp.namespace
from unitp.config import CHOICES
from unitp.errors import HostError, InputError, did_you_mean
from unitp.ranks.environment import KEPT, chosen
from unitp.ranks.member import no_forks
from unitp.ranks.worker_command import full_path

MODES = CHOICES["isolation"]
NAMESPACE = fspath(Path(unitp.namespace.__file__).absolute())
KINDS = ("user", "net")


_open: weakref.WeakSet[Isolation] = weakref.WeakSet()


class Isolation:
    """A network namespace in which processes can be started, or the reason `why` there is none."""

    def __init__(self, python: str, descriptors: Sequence[int] = (), why: str = "") -> None:
        self.python, self.descriptors, self.why = python, tuple(descriptors), why
        _open.add(self)

    @property
    def on(self) -> bool:
        return not self.why

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command that runs this one in the namespace. The caller must pass `descriptors` on to it."""
        if not self.on:
            return list(command)
        return [full_path(self.python), "-I", "-S", NAMESPACE, ",".join(map(str, self.descriptors)), *command]

    def close(self) -> None:
        """Start no further processes. The namespace lasts as long as it has processes."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def require_mode(mode: str) -> None:
    """Raise InputError for an unknown mode."""
    if mode not in MODES:
        raise InputError(f'isolation "{mode}" is none of {", ".join(MODES)}', hint=did_you_mean(mode, MODES))


def isolate(mode: str, python: str) -> Isolation:
    """A new namespace, made by the interpreter `python`; none for "off", or for "auto" if the host cannot make one.

    Raises HostError if the mode is "require" and the host cannot make one.
    """
    if mode == "off":
        return Isolation(python, why="it is switched off")
    made = _made(python)
    if mode == "require" and not made.on:
        raise HostError(
            f"sessions cannot be isolated on this host: {made.why}",
            hint="Allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns), or give --isolation auto.",
        )
    return made


def _made(python: str) -> Isolation:
    with no_forks:
        maker = subprocess.Popen(
            [full_path(python), "-I", "-S", NAMESPACE],
            env=chosen(os.environ, KEPT),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert maker.stdin is not None
    assert maker.stdout is not None
    try:
        said = maker.stdout.readline().decode(errors="replace").strip()
        if said != "made":
            return Isolation(python, why=f"no network namespace can be made ({said or 'its maker said nothing'})")
        return Isolation(python, _descriptors(maker.pid))
    finally:
        maker.kill()  # its standard input may stay open, in a fork of the driver
        maker.wait()
        maker.stdin.close()
        maker.stdout.close()


def _descriptors(pid: int) -> list[int]:
    """Descriptors of the namespaces in which a process differs from this one, in the order in which they are entered."""
    found = []
    for kind in KINDS:
        if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"):
            found.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
    return found


def _close_all() -> None:
    for isolation in _open:
        isolation.close()


os.register_at_fork(after_in_child=_close_all)
