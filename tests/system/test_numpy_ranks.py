"""NumPy ranks over MPI: the collectives on real processes, and how the backend starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unitp_mpi import cluster

from unitp.comparison.metrics import MEANING
from unitp.errors import BackendError
from unitp.mesh import Mesh

PROGRAMS = Path(__file__).with_name("random_programs.py")

pytestmark = pytest.mark.system


def no_port() -> int:
    raise AssertionError("MPI finds its own")


@pytest.mark.parametrize("mesh", [Mesh(tp=2), Mesh(tp=3), Mesh(dp=2, tp=2)], ids=str)
def test_random_programs_equal_the_unsharded_run(mesh):
    (process,) = cluster.processes(mesh, no_port)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **process.env}
    command = [*process.argv, sys.executable, str(PROGRAMS), str(mesh), "0", "15"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(part + "}") for part in done.stdout.replace("\n", "").split("}") if part]
    assert sorted(line["rank"] for line in found) == list(process.ranks)
    assert all(line["error"] <= MEANING for line in found)
    assert {line["probe"] for line in found} == {sum(range(1, mesh.size + 1))}
    assert all(line["calls"] > 100 and line["bytes"] > 1000 for line in found)


def test_one_rank_needs_no_launcher_and_no_mpi():
    (process,) = cluster.processes(Mesh(dp=1, tp=1), no_port)
    assert (process.role, process.ranks, process.argv) == ("worker", (0,), ())
    code = (
        "import sys; from unitp.mesh import Mesh; from unitp_numpy.executor import connect;"
        "engine = connect(0, Mesh(tp=1), None);"
        "assert engine.all_reduce_probe(3.0) == 3.0; engine.close();"
        "assert not {'mpi4py', 'torch', 'tensorflow', 'mxnet', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_a_missing_launcher_is_an_error_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="need mpiexec") as error:
        cluster.processes(Mesh(tp=2), no_port)
    assert "pip install" in error.value.hint
