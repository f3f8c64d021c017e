"""The hooks of backends and of transports, and the markers of all hooks. The others are declared in the rooms that they belong to."""

from __future__ import annotations

from unitp.plugins.hooks import Hook, hookimpl, hookspec
from unitp.plugins.spec import BackendSpec, TransportSpec

__all__ = ["BACKENDS", "TRANSPORTS", "hookimpl", "hookspec", "unitp_backend", "unitp_transport"]


@hookspec
def unitp_backend() -> BackendSpec | None:
    """Describe the backend that this plug-in provides, without importing its framework."""


BACKENDS: Hook[BackendSpec] = Hook("backend", unitp_backend, BackendSpec)


@hookspec
def unitp_transport() -> TransportSpec | None:
    """Describe the transport that this plug-in provides, without importing what it runs on."""


TRANSPORTS: Hook[TransportSpec] = Hook("transport", unitp_transport, TransportSpec)
