"""A backend without a framework, for tests of the runtime: two roles that only serve, ranks that misbehave on demand.

FAKE says how, as "RANK:STAGE:WHAT": `1:join:raise`, `0:run:hang`, `1:run:exit`, `0:join:taken`, `1:join:grip`, `0:run:starve`.
"""

from __future__ import annotations

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement

SPEC = BackendSpec(
    name="fake",
    distribution="unitp-fake",
    runtime="nothing",
    requires=(Requirement("numpy"),),
    install="nothing to install",
    dtypes=("float32", "float64"),
    cluster="unitp_fake.cluster:processes",
    engine="unitp_fake.executor:connect",
    server="unitp_fake.cluster:serve",
    start_limit_s=20.0,
    passes=("FAKE", "FAKE_*"),
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
