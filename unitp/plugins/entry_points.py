"""Finds plug-ins by entry points. They load one by one: a broken plug-in is reported, and the others work.

A plug-in in the current folder is not loaded. Python looks there first in a notebook or an interactive session, and
a user who enters a folder has not read its files. A plug-in whose distribution needs another version of unitp is not
loaded either.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from shlex import quote

import msgspec

from unitp.errors import from_signal

GROUP = "unitp"


class Broken(msgspec.Struct, frozen=True):
    """A plug-in that could not be loaded, and the reason.

    `distribution` is what to install, a name or a folder. `other` means that it was made for another version of unitp.
    """

    name: str
    distribution: str
    reason: str
    other: bool = False

    @property
    def mend(self) -> str:
        """The command that repairs it."""
        return f"pip install {'--upgrade unitp' if self.other else '--force-reinstall'} {quote(self.distribution)}"


class Plugin(msgspec.Struct, frozen=True):
    """A loaded plug-in: the module (or object) that its entry point names, and the distribution that it came with."""

    name: str
    module: object
    distribution: str
    version: str


@lru_cache
def loaded() -> tuple[tuple[Plugin, ...], tuple[Broken, ...]]:
    """Every entry point of the group `unitp` that loads, and the broken ones. They are loaded once per process."""
    plugins, broken = [], []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        owner = point.dist.name if point.dist else "?"
        if _in_current_folder(point):
            here = "it lies in the current folder, from which nothing is loaded until it is installed"
            broken.append(Broken(point.name, os.getcwd(), here))
            continue
        try:
            if reason := _made_for_another(point):
                broken.append(Broken(point.name, owner, reason, other=True))
                continue
            plugins.append(Plugin(point.name, point.load(), owner, point.dist.version if point.dist else ""))
        except Exception as error:
            # whatever a stranger's module raises is that plug-in's fault: it is reported
            if from_signal(error):
                raise
            broken.append(Broken(point.name, owner, f"{type(error).__name__}: {error}"))
    return tuple(plugins), tuple(broken)


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _made_for_another(point: EntryPoint) -> str:
    """The version of unitp that the distribution of a plug-in needs, if this is another one."""
    from packaging.requirements import Requirement

    here, dist = installed("unitp"), point.dist
    if here is None or dist is None:
        return ""
    for one in map(Requirement, dist.requires or ()):
        holds = one.marker is None or one.marker.evaluate({"extra": ""})
        if one.name == "unitp" and holds and not one.specifier.contains(here, prereleases=True):
            return f"{dist.name} {dist.version} needs {one}, and this is unitp {here}"
    return ""


def _in_current_folder(point: EntryPoint) -> bool:
    """Whether a plug-in was found because it is in the current folder, and unitp itself is not."""
    folder = Path(str(point.dist.locate_file(""))) if point.dist else None
    own = Path(__file__).parents[2]
    try:
        return folder is not None and folder.samefile(os.curdir) and not folder.samefile(own)
    except OSError:  # the current folder is gone
        return False
