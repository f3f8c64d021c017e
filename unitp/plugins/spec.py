"""What a backend says of itself, and how its processes start.

Everything in a `BackendSpec` is data: describing a backend imports no framework. `cluster` and `engine` name functions
("module:function") that are imported where they are used: `cluster` by the driver (it must not import the framework),
`engine` by a rank (it returns a `unitp.engine.engine.Engine`), `server` by a process of another role (it serves until it
is no longer needed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from unitp.mesh import Mesh


class Requirement(msgspec.Struct, frozen=True):
    """A distribution that must be installed; `version` is a specifier as in `==2.13.0`. `multi`: needed for two ranks or more only.

    `instead`: other distributions of the same thing (`tensorflow` for `tensorflow-cpu`).
    """

    distribution: str
    version: str = ""
    multi: bool = False
    instead: tuple[str, ...] = ()

    def unmet(self, versions: Mapping[str, str | None]) -> str:
        """What is wanted and, where another version is there, which; nothing where one of `versions` will do."""
        from packaging.specifiers import SpecifierSet

        have = {name: there for name in (self.distribution, *self.instead) if (there := versions.get(name)) is not None}
        if any(SpecifierSet(self.version).contains(there, prereleases=True) for there in have.values()):
            return ""
        found = ", ".join(f"{name} {there} is" for name, there in have.items())
        return f"{self.distribution}{self.version} ({found or 'not'} installed)"


class BackendSpec(msgspec.Struct, frozen=True):
    """`port_taken`: words by which its processes complain that somebody else took a port; the start is then tried again.

    `passes`: variables of the driver's environment that its processes get (`LC_*`: all that begin so). Beside them they get
    what `cluster` sets, where the user and programs are found, and what the user's settings file adds; nothing else.

    `exposed`: what can be reached, and by whom, of a session that is not isolated (`unitp.ranks.isolation`).

    `notice`: what somebody should know before relying on the framework, as that nobody mends it any more; `doctor` says it.

    `segments`: patterns of the names of files that its ranks make in `/dev/shm`, and may leave there where they are killed.
    """

    name: str
    distribution: str
    runtime: str
    requires: tuple[Requirement, ...]
    install: str
    dtypes: tuple[str, ...]
    cluster: str
    engine: str
    server: str = ""
    start_limit_s: float = 60.0
    port_taken: tuple[str, ...] = ("ddress already in use",)
    passes: tuple[str, ...] = ()
    exposed: str = ""
    notice: str = ""
    segments: tuple[str, ...] = ()


class Process(msgspec.Struct, frozen=True):
    """A process to start beside others. `argv` comes before the interpreter of a worker; roles other than "worker" serve.

    `ranks`: the ranks that live in or under this process (one; all of them under `mpiexec`; none for a server).
    """

    role: str
    ranks: tuple[int, ...]
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}


ClusterFunction = Callable[[Mesh, Callable[[], int]], list[Process]]
"""`processes(mesh, free_port)`: what to start for a mesh. `free_port()` gives a free loopback port."""
