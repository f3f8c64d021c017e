"""What a backend tells about itself, and how its processes start.

A `BackendSpec` is data only, so describing a backend imports no framework. `cluster`, `engine` and `server` name functions
("module:function") that are imported where they are used: `cluster` by the driver (it must not import the framework),
`engine` by a rank (it returns a `unitp.engine.engine.Engine`), `server` by a process of another role (it serves until it
is no longer needed).

A `TransportSpec` describes in the same way what may move bytes between the ranks of any backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from unitp.mesh import Mesh


class Requirement(msgspec.Struct, frozen=True):
    """A distribution that must be installed. `version` is a specifier like `==2.13.0`. `multi`: only for two ranks or more.

    `instead` lists other distributions that provide the same (`tensorflow` for `tensorflow-cpu`).
    """

    distribution: str
    version: str = ""
    multi: bool = False
    instead: tuple[str, ...] = ()

    def unmet(self, versions: Mapping[str, str | None]) -> str:
        """What is required and which version was found instead, or an empty text if one of `versions` satisfies it."""
        from packaging.specifiers import SpecifierSet

        have = {name: there for name in (self.distribution, *self.instead) if (there := versions.get(name)) is not None}
        if any(SpecifierSet(self.version).contains(there, prereleases=True) for there in have.values()):
            return ""
        found = ", ".join(f"{name} {there} is" for name, there in have.items())
        return f"{self.distribution}{self.version} ({found or 'not'} installed)"


class BackendSpec(msgspec.Struct, frozen=True):
    """The description of a backend.

    `transports`: what may carry its collectives, the preferred first. "native" is the framework's own runtime, which `cluster`
    starts and `runtime` names; others are those of plug-ins (`TransportSpec`). Without a `cluster` it has no runtime of its own,
    and the first of them counts as native.

    `engine` is called as `connect(rank, mesh, progress)`; over another transport than its own, with a fourth argument: the
    `unitp.engine.transport.Buffers` of the ranks, joined.

    `weights`: the dtypes of 16 bits in which it can hold weights (`unitp.engine.widening`); float32 and float64 every backend can.

    `variables`: what its ranks find in their environment, however they start.

    `port_taken`: words in a process's output that mean that its port was taken. The start is then tried again.

    `passes`: variables of the driver's environment that its processes get (`LC_*` is a prefix). In addition they get what
    `cluster` sets, the variables that locate the user and programs, and those of the user's settings file; nothing else.

    `prepare`: "module:function" that the driver calls before ranks start, as `prepare(python, environment, say)` with their
    interpreter and what they inherit. It makes what they need once on a host (compiled code), says what takes long, and returns a
    warning, or an empty text.

    `exposed`: what can be reached, and by whom, if a session is not isolated (`unitp.ranks.isolation`).

    `notice`: what users should know before they rely on the framework, for example that it is unmaintained. `doctor` says it.

    `segments`: name patterns of the files that its ranks make in `/dev/shm`, and may leave there if they are killed.
    """

    name: str
    distribution: str
    runtime: str
    requires: tuple[Requirement, ...]
    install: str
    dtypes: tuple[str, ...]
    engine: str
    cluster: str = ""
    transports: tuple[str, ...] = ("native",)
    weights: tuple[str, ...] = ()
    server: str = ""
    variables: dict[str, str] = {}
    prepare: str = ""
    start_limit_s: float = 60.0
    port_taken: tuple[str, ...] = ("ddress already in use",)
    passes: tuple[str, ...] = ()
    exposed: str = ""
    notice: str = ""
    segments: tuple[str, ...] = ()


class TransportSpec(msgspec.Struct, frozen=True):
    """The description of a transport: how ranks of any backend start with it, and how they join.

    `cluster` is as in a `BackendSpec`. `join` names what a rank calls as `join(rank, mesh)`, once its framework is imported; it
    returns a `unitp.engine.transport.Buffers`. `dtypes` are the NumPy names of what it carries. `port_taken`, `exposed` and
    `segments` are as in a `BackendSpec`.
    """

    name: str
    distribution: str
    runtime: str
    requires: tuple[Requirement, ...]
    install: str
    dtypes: tuple[str, ...]
    cluster: str
    join: str
    port_taken: tuple[str, ...] = ("ddress already in use",)
    exposed: str = ""
    segments: tuple[str, ...] = ()


class Process(msgspec.Struct, frozen=True):
    """A process to start. `argv` comes before the interpreter of a worker. Roles other than "worker" serve.

    `ranks` are the ranks in or under this process (one; all of them under `mpiexec`; none for a server).
    """

    role: str
    ranks: tuple[int, ...]
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}


ClusterFunction = Callable[[Mesh, Callable[[], int]], list[Process]]
"""`processes(mesh, free_port)`: what to start for a mesh. `free_port()` gives a free loopback port."""
