"""NumPy's backend with a clock around each run, so that a session tells how long its ranks are at work (`make bench`)."""

from __future__ import annotations

import msgspec
from unitp_numpy import SPEC

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec


@hookimpl
def unitp_backend() -> BackendSpec:
    return msgspec.structs.replace(SPEC, engine="clocked.engine:connect")
