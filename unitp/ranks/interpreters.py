"""What an interpreter can run. `unitp.worker describe` prints it as JSON; `ask_interpreter` asks another interpreter."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from shlex import quote

import msgspec

from unitp.errors import BackendError
from unitp.plugins import discover
from unitp.plugins.hookspecs import TRANSPORTS
from unitp.plugins.spec import BackendSpec, TransportSpec
from unitp.ranks.environment import KEPT, chosen
from unitp.ranks.worker_command import command

PATIENCE_S = 60.0


class BackendDescription(msgspec.Struct, frozen=True):
    """A backend of an interpreter. `versions` are those of the distributions it requires, None for a missing one."""

    name: str
    distribution: str
    runtime: str
    versions: dict[str, str | None]
    dtypes: tuple[str, ...]
    install: str


class TransportDescription(msgspec.Struct, frozen=True):
    """A transport of an interpreter, with `versions` as in a `BackendDescription`."""

    name: str
    versions: dict[str, str | None]


class Description(msgspec.Struct, frozen=True):
    """An interpreter and the backends that are installed in it. `broken` maps plug-ins that do not load to the reason."""

    executable: str
    python: str
    platform: str
    unitp: str | None
    backends: tuple[BackendDescription, ...]
    broken: dict[str, str]
    transports: tuple[TransportDescription, ...] = ()

    def lacking(self, spec: TransportSpec) -> list[str]:
        """What a transport needs that this interpreter does not have, in words."""
        found = next((t.versions for t in self.transports if t.name == spec.name), None)
        return [f"{spec.distribution} (not installed)"] if found is None else discover.lacking(spec, found)


def describe() -> Description:
    """A description of this interpreter. No framework is imported."""
    found = discover.registry()
    backends = tuple(
        BackendDescription(
            spec.name,
            spec.distribution,
            spec.runtime,
            discover.versions(spec),
            spec.dtypes,
            spec.install,
        )
        for spec in found.backends.values()
    )
    return Description(
        sys.executable,
        platform.python_version(),
        platform.platform(),
        discover.installed("unitp"),
        backends,
        {plugin.name: plugin.reason for plugin in found.broken},
        tuple(TransportDescription(o.name, discover.versions(o.value)) for o in TRANSPORTS.all().values()),
    )


def versions_in(python: str, spec: BackendSpec) -> dict[str, str | None]:
    """The versions that another interpreter has of what a backend requires, by distribution.

    Raises BackendError if it cannot be asked, has an incompatible version of unitp, or lacks the backend.
    """
    return _versions(ask_interpreter(python), python, spec)


def able_to_run(python: str, spec: BackendSpec, ranks: int) -> Description:
    """The description of another interpreter, which has what this many ranks of a backend need besides their transport.

    Raises BackendError as `versions_in`, and for a framework that is missing or too old.
    """
    answer = ask_interpreter(python)
    if wanted := discover.lacking(spec, _versions(answer, python, spec), ranks):
        raise BackendError(
            f"backend {spec.name} needs {', '.join(wanted)} in {python}", hint=f"Run: {quote(python)} -m {spec.install}"
        )
    return answer


def _versions(answer: Description, python: str, spec: BackendSpec) -> dict[str, str | None]:
    if (here := discover.installed("unitp")) and answer.unitp and _series(here) != _series(answer.unitp):
        raise BackendError(
            f"the interpreter {python} has unitp {answer.unitp}, and this is unitp {here}",
            hint=f"Run: {quote(python)} -m pip install unitp=={here} {spec.distribution}",
        )
    if reason := answer.broken.get(spec.name):
        raise BackendError(f"backend {spec.name} cannot be loaded in {python}: {reason}")
    found = next((b.versions for b in answer.backends if b.name == spec.name), None)
    if found is None:
        raise BackendError(
            f"{python} does not know backend {spec.name}",
            hint=f"Run: {quote(python)} -m pip install {spec.distribution}",
        )
    return found


def _series(version: str) -> tuple[int, ...]:
    """The part of a version that must be equal for two versions to understand each other."""
    from packaging.version import Version

    return Version(version).release[:2]


def ask_interpreter(python: str) -> Description:
    """The description that another interpreter gives. Raises BackendError if it cannot be run or has no unitp."""
    try:
        done = subprocess.run(
            command(python, "describe"),
            env=chosen(os.environ, KEPT),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"the interpreter {python} cannot be asked: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackendError(
            f"the interpreter {python} has no working unitp: {last}", hint=f"Run: {quote(python)} -m pip install unitp"
        )
    try:
        return msgspec.json.decode(done.stdout, type=Description)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BackendError(f"the interpreter {python} did not answer with a description: {error}") from None
