"""unitp's backend for MXNet: what it is and what it needs. Importing this imports no framework."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement
from unitp_mxnet.cluster import COMMON

SPEC = BackendSpec(
    name="mxnet",
    distribution="unitp-mxnet",
    runtime="KVStore dist_sync",
    requires=(Requirement("mxnet", "==1.9.1"),),
    install="pip install mxnet==1.9.1 numpy==1.26.4",
    dtypes=("float32", "float64"),
    engine="unitp_mxnet.executor:connect",
    cluster="unitp_mxnet.cluster:processes",
    transports=("mpi", "native"),
    server="unitp_mxnet.server:serve",
    variables={
        **COMMON,
        "DMLC_ROLE": "worker",
        "MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice",  # one after the other in the calling thread: as fast, and errors have a place
        "MXNET_SAFE_ACCUMULATION": "1",  # float32 sums are taken in float64
    },
    start_limit_s=120.0,
    port_taken=(": bind failed",),
    notice="Apache retired MXNet in 2023: its faults are not mended, and it keeps numpy below 2. Its KVStore lets in whoever reaches it, "
    "so keep isolation on, and give it an environment of its own",
    exposed="KVStore's servers take what any user of this host sends them",
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
