"""Finds plug-ins and backends. Entry points load one by one: a broken plug-in is reported, and the others work.

Installed distributions tell whether a framework is there. It is never imported for that (and `find_spec` is not used: it
would find a folder with the name of a framework).

A plug-in in the current folder is not loaded. Python looks there first in a notebook or an interactive session, and
a user who enters a folder has not read its files. A plug-in whose distribution needs another version of unitp is not
loaded either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
import pluggy

from unitp.errors import BackendError, did_you_mean, from_signal
from unitp.plugins import hookspecs
from unitp.plugins.spec import BackendSpec

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


class Registry(msgspec.Struct, frozen=True):
    """All backends by name, the module that each comes from, and the plug-ins that could not be loaded."""

    backends: dict[str, BackendSpec]
    modules: dict[str, str]
    broken: tuple[Broken, ...]


def manager() -> tuple[pluggy.PluginManager, tuple[Broken, ...]]:
    """A plug-in manager with every entry point of the group `unitp` that loads, and the broken ones."""
    plugins = pluggy.PluginManager("unitp")
    plugins.add_hookspecs(hookspecs)
    broken = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if _in_current_folder(point):
            here = "it lies in the current folder, from which nothing is loaded until it is installed"
            broken.append(Broken(point.name, os.getcwd(), here))
            continue
        try:
            if reason := _made_for_another(point):
                broken.append(Broken(point.name, _owner(point.name), reason, other=True))
                continue
            plugins.register(point.load(), point.name)
        except Exception as error:
            # whatever a stranger's module raises is that plug-in's fault: it is reported
            if from_signal(error):
                raise
            broken.append(Broken(point.name, _owner(point.name), f"{type(error).__name__}: {error}"))
    return plugins, tuple(broken)


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


@lru_cache
def registry() -> Registry:
    """The installed backends. They are looked up once per process."""
    plugins, broken = manager()
    found: dict[str, BackendSpec] = {}
    modules: dict[str, str] = {}
    failed = list(broken)
    for implementation in plugins.hook.unitp_backend.get_hookimpls():
        name = implementation.plugin_name
        try:
            spec: Any = implementation.function()
            if problem := _problem(spec, found):
                failed.append(Broken(name, _owner(name), problem))
            elif spec is not None:
                found[spec.name] = spec
                modules[spec.name] = getattr(implementation.plugin, "__name__", "")
        except Exception as error:  # as above
            if from_signal(error):
                raise
            failed.append(Broken(name, _owner(name), f"{type(error).__name__}: {error}"))
    return Registry(dict(sorted(found.items())), modules, tuple(failed))


def _problem(spec: object, found: Mapping[str, BackendSpec]) -> str:
    """Why a hook's return value cannot be added as a backend, or an empty text."""
    if spec is None:
        return ""
    if not isinstance(spec, BackendSpec):
        return f"unitp_backend returned {type(spec).__name__}, wanted is a BackendSpec"
    return f'another plug-in has a backend "{spec.name}"' if spec.name in found else ""


def _owner(name: str) -> str:
    """The distribution of an entry point."""
    return next((p.dist.name for p in entry_points(group=GROUP, name=name) if p.dist), "?")


def backends() -> dict[str, BackendSpec]:
    return registry().backends


def backend(name: str) -> BackendSpec:
    """The backend called `name`. Raises BackendError with the nearest name, or with the reason why its plug-in is broken."""
    found = registry()
    if name in found.backends:
        return found.backends[name]
    for plugin in found.broken:
        if plugin.name == name:
            raise BackendError(f"backend {name} cannot be loaded: {plugin.reason}", hint=f"Run: {plugin.mend}")
    raise BackendError(f'unknown backend "{name}"', hint=did_you_mean(name, found.backends))


def plugin_of(spec: BackendSpec) -> str:
    """The module that describes a backend: the plug-in that registered it, else the package of its engine."""
    found = registry()
    return found.modules[spec.name] if found.backends.get(spec.name) == spec else spec.engine.partition(".")[0]


def described(name: str, plugin: str = "") -> BackendSpec:
    """The backend called `name`, as the module `plugin` describes it, else the installed one. Raises BackendError if unknown."""
    hook = getattr(import_module(plugin), "unitp_backend", None) if plugin else None
    spec = hook() if hook else None
    return spec if isinstance(spec, BackendSpec) and spec.name == name else backend(name)


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def versions(spec: BackendSpec) -> dict[str, str | None]:
    """The installed versions of what a backend requires, by distribution; None for a missing one."""
    found: dict[str, str | None] = {}
    for requirement in spec.requires:
        names = (requirement.distribution, *requirement.instead)
        there: dict[str, str | None] = {name: have for name in names if (have := installed(name)) is not None}
        found |= there or {requirement.distribution: None}
    return found


def lacking(spec: BackendSpec, versions: Mapping[str, str | None], ranks: int = 1) -> list[str]:
    """What a backend needs for this many ranks but these versions do not satisfy, in words."""
    needed = (requirement for requirement in spec.requires if ranks > 1 or not requirement.multi)
    return [unmet for requirement in needed if (unmet := requirement.unmet(versions))]


def missing(spec: BackendSpec, ranks: int = 1) -> list[str]:
    """What a backend needs for this many ranks but this interpreter lacks, in words."""
    return lacking(spec, versions(spec), ranks)


def require(spec: BackendSpec, ranks: int = 1) -> None:
    """Raise BackendError, with the command that installs it, if the framework of a backend is missing or too old."""
    if wanted := missing(spec, ranks):
        raise BackendError(f"backend {spec.name} needs {', '.join(wanted)}", hint=f"Run: {spec.install}")


def resolve(path: str) -> Callable[..., Any]:
    """The function that "module:function" refers to."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
