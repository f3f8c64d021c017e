"""The hook of backends, and the markers of all hooks. The others are declared in the rooms that they belong to."""

from __future__ import annotations

from unitp.plugins.hooks import Hook, hookimpl, hookspec
from unitp.plugins.spec import BackendSpec

__all__ = ["BACKENDS", "hookimpl", "hookspec", "unitp_backend"]


@hookspec
def unitp_backend() -> BackendSpec | None:
    """Describe the backend that this plug-in provides, without importing its framework."""


BACKENDS: Hook[BackendSpec] = Hook("backend", unitp_backend, BackendSpec)
