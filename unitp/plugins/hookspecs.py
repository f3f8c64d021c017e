"""The hooks of unitp. A plug-in is a module named in the entry-point group `unitp`."""

from __future__ import annotations

import pluggy

from unitp.plugins.spec import BackendSpec

hookspec = pluggy.HookspecMarker("unitp")
hookimpl = pluggy.HookimplMarker("unitp")


@hookspec
def unitp_backend() -> BackendSpec | None:
    """Describe the backend that this plug-in provides, without importing its framework."""
