"""A plug-in whose hook returns something else."""

from unitp.plugins.hookspecs import hookimpl


@hookimpl
def unitp_backend() -> str:
    return "a backend"
