"""unitp's backend for TensorFlow over tf.distribute's collective runtime: what it is and what it needs."""

from unitp.plugins.hookspecs import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement

SPEC = BackendSpec(
    name="tensorflow",
    distribution="unitp-tensorflow",
    runtime="tf.distribute/RING",
    requires=(Requirement("tensorflow-cpu", ">=2.20", instead=("tensorflow",)),),
    install="pip install tensorflow-cpu==2.21.0",
    dtypes=("float32", "float64"),
    engine="unitp_tensorflow.executor:connect",
    cluster="unitp_tensorflow.cluster:processes",
    transports=("mpi", "native"),
    variables={
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "GRPC_VERBOSITY": "ERROR",
        "CUDA_VISIBLE_DEVICES": "-1",
    },
    start_limit_s=90.0,
    port_taken=("Could not start gRPC server",),
    exposed="TensorFlow's servers listen on every interface: whoever reaches them reads and writes this user's files",
)


@hookimpl
def unitp_backend() -> BackendSpec:
    return SPEC
