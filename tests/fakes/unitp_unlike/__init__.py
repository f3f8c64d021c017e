"""NumPy's backend, on ranks whose numbers differ, as those of other processors' kernels would, only more."""

from __future__ import annotations

import msgspec
from unitp_numpy import SPEC as NUMPY

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec

SPEC = msgspec.structs.replace(NUMPY, name="unlike", engine="unitp_unlike.executor:connect")


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
