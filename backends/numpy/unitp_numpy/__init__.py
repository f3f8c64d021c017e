"""unitp's backend for NumPy over MPI, the embedded default and the reference: what it is and what it needs."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement

SPEC = BackendSpec(
    name="numpy",
    distribution="unitp-numpy",
    runtime="MPI",
    requires=(Requirement("numpy", ">=1.26"),),
    install='pip install "unitp-numpy[mpi]"',
    dtypes=("float32", "float64"),
    engine="unitp_numpy.executor:connect",
    transports=("mpi",),
    weights=("bfloat16", "float16"),
    prepare="unitp_numpy.kernels.library:prepare",
    start_limit_s=30.0,
    passes=("XDG_CACHE_HOME",),
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
