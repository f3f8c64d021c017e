"""unitp's transport over MPI: what it is and what it needs. Every backend may use it; NumPy, which has no other, does by default."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import Requirement, TransportSpec

SPEC = TransportSpec(
    name="mpi",
    distribution="unitp-mpi",
    runtime="MPI",
    requires=(Requirement("mpi4py", ">=4"), Requirement("mpich", ">=5")),
    install='pip install "unitp-mpi[mpi]"',
    dtypes=(
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ),
    cluster="unitp_mpi.cluster:processes",
    join="unitp_mpi.collectives:Buffers",
    exposed="mpiexec listens on every interface for its own processes",
    segments=("mpich_*", "ucx_shm_*"),
)


@hookimpl
def unitp_transport() -> TransportSpec:
    return SPEC
