"""A backend whose framework is not installed."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement

SPEC = BackendSpec(
    name="absent",
    distribution="unitp-strange",
    runtime="nothing",
    requires=(Requirement("strange-framework", ">=2"),),
    install="pip install strange-framework==2.1",
    dtypes=("float32",),
    cluster="unitp_strange.nowhere:processes",
    engine="unitp_strange.nowhere:connect",
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
