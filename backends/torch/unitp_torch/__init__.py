"""unitp's backend for PyTorch over torch.distributed (gloo): what it is and what it needs."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement

SPEC = BackendSpec(
    name="torch",
    distribution="unitp-torch",
    runtime="torch.distributed/gloo",
    requires=(Requirement("torch", ">=2.9"),),
    install="pip install torch==2.13.0",
    dtypes=("float32", "float64"),
    engine="unitp_torch.executor:connect",
    cluster="unitp_torch.cluster:processes",
    transports=("mpi", "native"),
    start_limit_s=60.0,
    exposed="the ranks' store and gloo take what any user of this host sends them",
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
