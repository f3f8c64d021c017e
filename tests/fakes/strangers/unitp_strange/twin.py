"""A backend with a name that is taken."""

import msgspec

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec
from unitp_strange import absent


@hookimpl
def unitp_backend() -> BackendSpec:
    return msgspec.structs.replace(absent.SPEC, name="numpy")
