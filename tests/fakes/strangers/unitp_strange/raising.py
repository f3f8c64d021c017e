"""A plug-in whose hook raises."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec


@hookimpl
def unitp_backend() -> BackendSpec:
    raise KeyError("home")
