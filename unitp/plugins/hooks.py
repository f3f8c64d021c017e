"""Hooks: a room of unitp declares what a plug-in may add to it, and what is built in comes through the same hook.

    FRONT_ENDS = Hook("front end", unitp_front_ends, FrontEnd, [BuiltIn()])

A plug-in is a module that an entry point of the group `unitp` names. It implements any of the hooks, each with a function
of the hook's name, marked with `hookimpl`. Plug-ins are loaded when a name is asked for that is not built in, or when
everything is listed. One that breaks, or gives a name that is taken already, is reported, and the others work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, Generic, TypeVar

import msgspec
import pluggy

from unitp.errors import from_signal
from unitp.plugins.entry_points import Broken, Plugin, installed, loaded

hookspec = pluggy.HookspecMarker("unitp")
hookimpl = pluggy.HookimplMarker("unitp")

T = TypeVar("T")

_HOOKS: list[Hook[Any]] = []


class Offer(msgspec.Struct, Generic[T], frozen=True):
    """A thing that a hook was given: its name, the plug-in, its distribution ("unitp" if it is built in), and its version."""

    name: str
    value: T
    plugin: str
    distribution: str
    version: str
    module: str


class Hook(Generic[T]):
    """One extension point. Its function returns a mapping from names to things of type `T`, or things that have a `name`."""

    def __init__(self, kind: str, spec: Callable[..., Any], type_: Any, built_in: Iterable[object] = ()) -> None:
        """`kind` is what one thing is called ("front end"), `type_` what `isinstance` takes for `T`, and `built_in` are the plug-ins
        that unitp itself brings.
        """
        self.kind, self.name, self._type = kind, spec.__name__, type_
        self._spec = ModuleType(kind)
        setattr(self._spec, self.name, spec)
        own = (Plugin(f"unitp {number}", plugin, "unitp", _own_version()) for number, plugin in enumerate(built_in))
        self.built_in, broken = self._asked(own, {})
        if broken:
            raise TypeError(f"what is built in is broken: {broken[0].reason}")
        self._strangers: tuple[dict[str, Offer[T]], tuple[Broken, ...]] | None = None
        _HOOKS.append(self)

    def strangers(self) -> Mapping[str, Offer[T]]:
        """What plug-ins add, by name."""
        return self._added()[0]

    def broken(self) -> tuple[Broken, ...]:
        """The plug-ins that load, but whose answer cannot be used."""
        return self._added()[1]

    def all(self) -> dict[str, Offer[T]]:
        """What is built in, and what plug-ins add."""
        return {**self.built_in, **self.strangers()}

    def find(self, name: str) -> T | None:
        """The thing of this name, or None. Plug-ins are loaded only if it is not built in."""
        offer = self.built_in.get(name) or self.strangers().get(name)
        return None if offer is None else offer.value

    def forget(self) -> None:
        """Ask plug-ins again the next time."""
        self._strangers = None

    def _added(self) -> tuple[dict[str, Offer[T]], tuple[Broken, ...]]:
        if self._strangers is None:
            self._strangers = self._asked(loaded()[0], dict.fromkeys(self.built_in, "unitp"))
        return self._strangers

    def _asked(
        self, plugins: Iterable[Plugin], taken: dict[str, str]
    ) -> tuple[dict[str, Offer[T]], tuple[Broken, ...]]:
        """What these plug-ins give, and those whose answer cannot be used."""
        found: dict[str, Offer[T]] = {}
        broken = []
        for plugin in plugins:
            try:
                given = self._given(plugin)
                if problem := self._problem(given, taken | dict.fromkeys(found, "another plug-in")):
                    broken.append(Broken(plugin.name, plugin.distribution, problem))
                    continue
            except Exception as error:
                # whatever a stranger's function raises is that plug-in's fault: it is reported
                if from_signal(error):
                    raise
                broken.append(Broken(plugin.name, plugin.distribution, f"{type(error).__name__}: {error}"))
                continue
            module = getattr(plugin.module, "__name__", "")
            for name, value in given.items():
                found[name] = Offer(name, value, plugin.name, plugin.distribution, plugin.version, module)
        return dict(sorted(found.items())), tuple(broken)

    def _given(self, plugin: Plugin) -> dict[Any, Any]:
        """What a plug-in's function returns, by name; nothing if it does not implement the hook."""
        manager = pluggy.PluginManager("unitp")
        manager.add_hookspecs(self._spec)
        manager.register(plugin.module, plugin.name)
        given: dict[Any, Any] = {}
        for implementation in getattr(manager.hook, self.name).get_hookimpls():
            made = implementation.function()
            if isinstance(made, Mapping):
                given |= made
            else:
                for one in made if isinstance(made, list | tuple) else () if made is None else (made,):
                    name = getattr(one, "name", None)
                    if name in given:
                        raise ValueError(f'{self.name} returned "{name}" twice')
                    given[name] = one
        return given

    def _problem(self, given: Mapping[Any, Any], taken: Mapping[str, str]) -> str:
        """Why what a plug-in gives cannot be used, or an empty text. `taken`: who has a name already."""
        article = "an" if self.kind[0] in "aeiou" else "a"
        for name, value in given.items():
            if not isinstance(value, self._type):
                return f"{self.name} returned {type(value).__name__} instead of {article} {self._type.__name__}"
            if not isinstance(name, str) or not name:
                return f"{self.name} returned {article} {self.kind} without a name"
            if name in taken:
                return f'{taken[name]} has {article} {self.kind} "{name}"'
        return ""


def forget() -> None:
    """Look for plug-ins again the next time: others are installed now."""
    loaded.cache_clear()
    for hook in _HOOKS:
        hook.forget()


@lru_cache
def _own_version() -> str:
    """The version of unitp. It is read from a file, once for all hooks."""
    return installed("unitp") or ""
