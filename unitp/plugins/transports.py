"""Which transport carries the collectives of a session: the backend's own runtime ("native"), or that of a plug-in.

    auto      the first of `BackendSpec.transports` that is installed where the ranks run, and that carries their dtype
    native    the framework's own runtime; of a backend that has none (NumPy), the first of its `transports`
    mpi ...   that transport, or an error that says what to install

One rank alone needs no transport, and gets none, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import msgspec

from unitp.errors import BackendError, did_you_mean
from unitp.plugins.entry_points import loaded
from unitp.plugins.hookspecs import TRANSPORTS
from unitp.plugins.spec import BackendSpec, TransportSpec

AUTO, NATIVE, ALONE = "auto", "native", ""


class Carrier(msgspec.Struct, frozen=True):
    """The transport of one session.

    name       "native", that of a plug-in, or empty where one rank is alone
    runtime    what it is called in tables
    plugin     the module that describes it; empty if the backend does
    dtypes     what it carries; empty for everything that the backend computes in
    cluster, port_taken, exposed, segments    as in a `BackendSpec`
    """

    name: str
    runtime: str
    cluster: str
    plugin: str = ""
    dtypes: tuple[str, ...] = ()
    port_taken: tuple[str, ...] = ()
    exposed: str = ""
    segments: tuple[str, ...] = ()

    def lacks(self, dtype: str) -> bool:
        """Whether it does not carry a dtype."""
        return bool(self.dtypes) and dtype not in self.dtypes


Lacking = Callable[[TransportSpec], list[str]]
"""What a transport needs and the ranks' interpreter does not have, in words."""


def transport(name: str) -> TransportSpec:
    """The transport of this name that a plug-in describes. Raises BackendError with the nearest name, or what is broken."""
    if (found := TRANSPORTS.find(name)) is not None:
        return found
    for plugin in (*loaded()[1], *TRANSPORTS.broken()):
        if plugin.name == name:
            raise BackendError(f"transport {name} cannot be loaded: {plugin.reason}", hint=f"Run: {plugin.mend}")
    raise BackendError(f'unknown transport "{name}"', hint=did_you_mean(name, names()))


def described(name: str, plugin: str = "") -> TransportSpec:
    """The transport called `name`, as the module `plugin` describes it, else the installed one. Raises BackendError if unknown."""
    hook = getattr(import_module(plugin), "unitp_transport", None) if plugin else None
    spec = hook() if hook else None
    return spec if isinstance(spec, TransportSpec) and spec.name == name else transport(name)


def names() -> tuple[str, ...]:
    """Every word that may be asked for."""
    return (AUTO, NATIVE, *TRANSPORTS.all())


def native(spec: BackendSpec) -> str:
    """The transport that counts as the backend's own."""
    return NATIVE if spec.cluster else next(name for name in spec.transports if name != NATIVE)


def usable(spec: BackendSpec) -> tuple[str, ...]:
    """The transports that a backend can use, the preferred first."""
    return tuple(name for name in spec.transports if name != NATIVE or spec.cluster)


def choose(spec: BackendSpec, wanted: str, ranks: int, dtype: str, lacking: Lacking, pip: str = "") -> Carrier:
    """The transport of a session of `ranks` that compute in `dtype`. `pip`: what comes before a command that installs something.

    Raises BackendError for a transport that is unknown, not installed, or that the backend or dtype cannot use.
    """
    if wanted not in (AUTO, NATIVE, *usable(spec)):
        transport(wanted)  # an unknown one is told as such
        others = _words(usable(spec))
        raise BackendError(f"backend {spec.name} cannot use transport {wanted}", hint=f"It can use {others}.")
    if ranks == 1:
        return Carrier(ALONE, "one process", spec.cluster)
    if wanted == AUTO:
        return _first(spec, dtype, lacking, pip)
    name = native(spec) if wanted == NATIVE else wanted
    return _required(spec, name, dtype, lacking, pip)


def _first(spec: BackendSpec, dtype: str, lacking: Lacking, pip: str) -> Carrier:
    """The first transport that can be used; if none can, the error of the backend's own."""
    for name in usable(spec):
        if name == NATIVE:
            return _own(spec)
        known = TRANSPORTS.find(name)
        if known is not None and dtype in known.dtypes and not lacking(known):
            return _carrier(known)
    return _required(spec, native(spec), dtype, lacking, pip)


def _required(spec: BackendSpec, name: str, dtype: str, lacking: Lacking, pip: str) -> Carrier:
    if name == NATIVE:
        return _own(spec)
    found = transport(name)
    if dtype not in found.dtypes:
        others = _words([n for n in usable(spec) if n != name])
        hint = f"Give --transport {others}." if others else f"It carries {', '.join(found.dtypes)}."
        raise BackendError(f"transport {name} does not carry {dtype}", hint=hint)
    if wanted := lacking(found):
        raise BackendError(f"transport {name} needs {', '.join(wanted)}", hint=f"Run: {pip}{found.install}")
    return _carrier(found)


def _own(spec: BackendSpec) -> Carrier:
    return Carrier(
        NATIVE,
        spec.runtime,
        spec.cluster,
        port_taken=spec.port_taken,
        exposed=spec.exposed,
        segments=spec.segments,
    )


def _carrier(found: TransportSpec) -> Carrier:
    offer = TRANSPORTS.all()[found.name]
    return Carrier(
        found.name,
        found.runtime,
        found.cluster,
        offer.module,
        found.dtypes,
        found.port_taken,
        found.exposed,
        found.segments,
    )


def _words(given: Sequence[str]) -> str:
    return " or ".join(given)
