"""Finds backends. What is installed tells whether a framework is there: it is never imported for that.

(`find_spec` is not used: it would find a folder with the name of a framework.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

import msgspec

from unitp.errors import BackendError, did_you_mean
from unitp.plugins import hooks
from unitp.plugins.entry_points import Broken, installed, loaded
from unitp.plugins.hookspecs import BACKENDS, TRANSPORTS
from unitp.plugins.spec import BackendSpec, TransportSpec

__all__ = [
    "Broken",
    "Registry",
    "backend",
    "backends",
    "described",
    "forget",
    "installed",
    "lacking",
    "missing",
    "plugin_of",
    "registry",
    "require",
    "resolve",
    "versions",
]


class Registry(msgspec.Struct, frozen=True):
    """All backends by name, the module that each comes from, and the plug-ins that could not be loaded."""

    backends: dict[str, BackendSpec]
    modules: dict[str, str]
    broken: tuple[Broken, ...]


@lru_cache
def registry() -> Registry:
    """The installed backends. They are looked up once per process."""
    offers = BACKENDS.strangers()
    broken = sorted((*loaded()[1], *BACKENDS.broken()), key=lambda one: one.name)
    modules = {name: offer.module for name, offer in offers.items()}
    return Registry({name: offer.value for name, offer in offers.items()}, modules, tuple(broken))


def forget() -> None:
    """Look for plug-ins again the next time: others are installed now."""
    hooks.forget()
    registry.cache_clear()


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


def versions(spec: BackendSpec | TransportSpec) -> dict[str, str | None]:
    """The installed versions of what a backend or a transport requires, by distribution; None for a missing one."""
    found: dict[str, str | None] = {}
    for requirement in spec.requires:
        names = (requirement.distribution, *requirement.instead)
        there: dict[str, str | None] = {name: have for name in names if (have := installed(name)) is not None}
        found |= there or {requirement.distribution: None}
    return found


def lacking(spec: BackendSpec | TransportSpec, versions: Mapping[str, str | None], ranks: int = 1) -> list[str]:
    """What a backend (or a transport) needs for this many ranks but these versions do not satisfy, in words."""
    needed = (requirement for requirement in spec.requires if ranks > 1 or not requirement.multi)
    return [unmet for requirement in needed if (unmet := requirement.unmet(versions))]


def missing(spec: BackendSpec | TransportSpec, ranks: int = 1) -> list[str]:
    """What a backend (or a transport) needs for this many ranks but this interpreter lacks, in words."""
    wanted = lacking(spec, versions(spec), ranks)
    if isinstance(spec, BackendSpec) and ranks > 1 and not spec.cluster:  # another transport counts as its own
        own = TRANSPORTS.find(spec.transports[0])
        wanted += [f"transport {spec.transports[0]} (not installed)"] if own is None else missing(own)
    return wanted


def require(spec: BackendSpec, ranks: int = 1) -> None:
    """Raise BackendError, with the command that installs it, if the framework of a backend is missing or too old."""
    if wanted := lacking(spec, versions(spec), ranks):
        raise BackendError(f"backend {spec.name} needs {', '.join(wanted)}", hint=f"Run: {spec.install}")


def resolve(path: str) -> Callable[..., Any]:
    """The function that "module:function" refers to."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
