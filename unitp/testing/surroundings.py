"""What a session may be started in: the environments of schedulers, launchers and frameworks, all at once and all wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = "127.0.0.1"
SCHEDULERS = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOBID": "7",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "64",
    "SLURM_NNODES": "2",
    "SLURM_NODELIST": "far[1-2]",
    "SLURM_JOB_NODELIST": "far[1-2]",
    "SLURM_TASKS_PER_NODE": "32(x2)",
    "SLURM_LOCALID": "1",
    "PBS_JOBID": "7.far",
    "PBS_ENVIRONMENT": "PBS_INTERACTIVE",
    "PBS_NODEFILE": "/etc/hostname",
    "LSB_JOBID": "7",
    "LSB_HOSTS": "far1 far2",
    "JOB_ID": "7",
    "PE_HOSTFILE": "/etc/hostname",
    "COBALT_NODEFILE": "/etc/hostname",
}
LAUNCHERS = {
    "PMI_RANK": "3",
    "PMI_SIZE": "9",
    "PMI_FD": "77",
    "PMI_PORT": "far:1",
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "far",
    "PMIX_SERVER_URI41": "far",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "9",
    "OMPI_MCA_btl": "nowhere",
    "MPI_LOCALRANKID": "3",
    "MPI_LOCALNRANKS": "9",
    "HYDI_CONTROL_FD": "77",
    "HYDRA_HOST_FILE": "/nowhere/hosts",
    "HYDRA_LAUNCHER": "ssh",
    "HYDRA_LAUNCHER_EXEC": "/nowhere/ssh",
    "HYDRA_RMK": "pbs",
    "HYDRA_BINDING": "user:0",
    "HYDRA_ENV": "none",
    "HYDRA_IFACE": "nowhere0",
    "MPIEXEC_TIMEOUT": "1",
    "MPIEXEC_PORT_RANGE": "1:2",
    "MPIR_CVAR_NOLOCAL": "1",
    "MPIR_CVAR_CH4_NETMOD": "nowhere",
    "MPIR_CVAR_ENABLE_GPU": "1",
    "MPI4PY_RC_THREAD_LEVEL": "nothing",
    "MPI4PY_LIBMPI": "/nowhere/libmpi.so",
    "UCX_TLS": "nothing",
    "FI_PROVIDER": "nothing",
    "RANK": "5",
    "LOCAL_RANK": "5",
    "WORLD_SIZE": "9",
    "MASTER_ADDR": "far",
    "MASTER_PORT": "1",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "far",
    "GLOO_SOCKET_IFNAME": "nowhere0",
}
FRAMEWORKS = {
    "OMP_NUM_THREADS": "64",
    "OMP_PROC_BIND": "true",
    "OMP_PLACES": "{0}",
    "OMP_DISPLAY_ENV": "verbose",
    "GOMP_CPU_AFFINITY": "0",
    "KMP_AFFINITY": "compact",
    "OPENBLAS_NUM_THREADS": "64",
    "DMLC_ROLE": "server",
    "DMLC_PS_ROOT_URI": "far",
    "DMLC_PS_ROOT_PORT": "1",
    "DMLC_NUM_WORKER": "9",
    "DMLC_INTERFACE": "nowhere0",
    "PS_VERBOSE": "2",
    "MXNET_ENGINE_TYPE": "nothing",
    "MXNET_KVSTORE_BIGARRAY_BOUND": "1",
    "TF_CONFIG": '{"cluster": {"worker": ["far:1", "far:2"]}, "task": {"type": "worker", "index": 1}}',
    "TF_NUM_INTRAOP_THREADS": "0",
    "TF_XLA_FLAGS": "--nothing",
    "XLA_FLAGS": "--nothing",
    "TF_USE_LEGACY_KERAS": "1",
    "GRPC_VERBOSITY": "nothing",
    "GRPC_TRACE": "all",
    "TORCH_LOGS": "nothing",
    "TORCH_DISTRIBUTED_DEBUG": "nothing",
    "http_proxy": "http://far:1",
    "https_proxy": "http://far:1",
    "grpc_proxy": "http://far:1",
    "MALLOC_ARENA_MAX": "64",
    "LD_BIND_NOW": "1",
}
PYTHON = {
    "PYTHONSTARTUP": "/nowhere/startup.py",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": ":.:",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONOPTIMIZE": "2",
    "PYTHONPROFILEIMPORTTIME": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONBREAKPOINT": "nowhere.nothing",
    "VIRTUAL_ENV": "/nowhere",
    "LC_ALL": "C",
}
HOSTILE = {**SCHEDULERS, **LAUNCHERS, **FRAMEWORKS, **PYTHON, "UNITP_RANK": "5", "UNITP_FOLDER": "/nowhere"}

OURS = ("unitp", "unitp_mpi", "unitp_numpy", "unitp_torch", "unitp_tensorflow", "unitp_mxnet", "unitp_fake")
THEIRS = ("numpy", "msgspec", "mpi4py", "torch", "tensorflow", "mxnet", "pluggy", "sitecustomize", "usercustomize")


class Surroundings:
    """A folder to start in, with a module of every name that could be imported, and programs that must not be called.

    Whatever is executed of it is found in `executed`.
    """

    def __init__(self, root: Path) -> None:
        self.record = root / "executed"
        self.folder, self.programs, self.home = root / "here", root / "programs", root / "home"
        for folder in (self.folder, self.programs, self.home):
            folder.mkdir(parents=True)
        canary = f"open({str(self.record)!r}, 'a').write(__name__ + '\\n'); raise ImportError('a stranger')\n"
        for name in (*sys.stdlib_module_names, *THEIRS):
            (self.folder / f"{name}.py").write_text(canary)
        for name in OURS:
            (self.folder / name).mkdir()
            (self.folder / name / "__init__.py").write_text(canary)
        for name in ("srun", "ssh", "rsh", "qrsh", "blaunch", "hydra_pmi_proxy", "hydra_bstrap_proxy"):
            script = self.programs / name
            script.write_text(f"#!/bin/sh\necho {name} >> {self.record}\nexit 1\n")
            script.chmod(0o755)
        (self.home / ".mpiexec.hydra.conf").write_text("HYDRA_LAUNCHER ssh\n-launcher ssh\n")
        (self.folder / "ucx.conf").write_text("UCX_LOG_LEVEL=nothing\nUCX_SHM_DEVICES=nothing\n")

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.programs), ".", "", os.environ["PATH"]])
        return {**HOSTILE, "PATH": path, "HOME": str(self.home)}

    @property
    def executed(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []
