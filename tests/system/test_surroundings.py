"""Wherever a session is started, its ranks start, compute the same, and execute nothing that lies around; and what the host
lacks is told.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.errors import HostError, RankError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plugins.discover import backends
from unitp.plugins.spec import BackendSpec
from unitp.session.launch import launch
from unitp.testing.models import EAGER_TO_SPLIT
from unitp.testing.surroundings import SCHEDULERS, Surroundings

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))
IDS = [[5, 17, 3, 88, 41]]


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """This process, from here on, in surroundings that are all wrong."""
    made = Surroundings(tmp_path)
    monkeypatch.chdir(made.folder)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(scope="module")
def logits(tiny: Graph, zoo_of_module: Any) -> Any:
    """What is right, computed on one rank in good surroundings."""
    with launch(tiny, plan(Request(tiny, Mesh())), dtype="float64") as session:
        return session.run(input_ids=IDS)["logits"]


def test_these_surroundings_stop_who_heeds_them(tmp_path: Path) -> None:
    """MPICH's own launcher, left to itself, calls programs that would go to other hosts."""
    made = Surroundings(tmp_path)
    environment = {**os.environ, **SCHEDULERS, "PATH": made.environment()["PATH"]}
    with subprocess.Popen([MPIEXEC, "-n", "2", "true"], env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10.0
        while not made.executed and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert made.executed == ["srun"]


@pytest.mark.parametrize(
    "name,transport",
    [
        *((name, "native") for name in ("numpy", "torch", "tensorflow", "mxnet")),
        ("torch", "mpi"),
        *(pytest.param(name, "mpi", marks=pytest.mark.full) for name in ("tensorflow", "mxnet")),
    ],
)
def test_every_backend_starts_in_surroundings_that_are_all_wrong(
    name: str, transport: str, tiny: Graph, logits: Any, surroundings: Surroundings, zoo: Any
) -> None:
    decided = plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    with launch(tiny, decided, name, dtype="float64", transport=transport) as session:
        np.testing.assert_allclose(session.run(input_ids=IDS)["logits"].astype(float), logits, rtol=0, atol=1e-5)
        for rank in range(2):
            pid = zoo.find(f"rank {rank}").pid
            assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
            assert os.readlink(f"/proc/{pid}/cwd") != str(surroundings.folder)
    assert surroundings.executed == []


def test_these_are_all_backends() -> None:
    assert set(backends()) >= {"numpy", "torch", "tensorflow", "mxnet"}


def test_a_driver_under_real_launchers_works(folder: str) -> None:
    """Under torchrun, whose process is an mpiexec, whose process is the driver, which starts an mpiexec of its own."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--no-python")
    driver = (sys.executable, "-m", "unitp", "generate", folder, "--prompt-ids", "5,17,3", "--max-new-tokens", "3")
    line = (*torchrun, MPIEXEC, "-n", "1", *driver, "--mesh", "tp=2", "--json")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 3
    for left in Path(os.environ["TMPDIR"]).glob("torchelastic_*"):  # torchrun's own logs
        shutil.rmtree(left)


def test_ranks_run_in_one_cpu(tiny: Graph, logits: Any) -> None:
    """As in a container with a single one; two threads each, which is more than there are."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(before)})
        with launch(
            tiny, plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT)), dtype="float64", threads=2
        ) as session:
            np.testing.assert_allclose(session.run(input_ids=IDS)["logits"].astype(float), logits, rtol=0, atol=1e-9)
    finally:
        os.sched_setaffinity(0, before)


def test_the_users_own_file_adds_variables(
    tiny: Graph, fake: BackendSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts more than what a backend lets through of the driver's environment."""
    (tmp_path / "unitp").mkdir()
    (tmp_path / "unitp" / "unitp.toml").write_text('[backends.fake.env]\nFAKE = "1:join:raise"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("FAKE", "0:join:raise")
    with pytest.raises(RankError, match="rank 1 raised ZeroDivisionError"):
        launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake)


def test_a_rank_that_dies_of_a_full_memory_disk_says_so(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "1:join:bus")
    with pytest.raises(RankError, match=r"rank 1 .* was killed by SIGBUS") as caught:
        launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake)
    assert "/dev/shm has" in caught.value.hint
    assert "unitp-" in caught.value.hint
    assert "MiB free of" in caught.value.hint


@pytest.mark.parametrize("more", [0, 3, 6])
def test_a_driver_without_descriptors_says_so(more: int, tiny: Graph, fake: BackendSpec) -> None:
    """At once, or when it has used up the few that there are: for the session's folder, its processes, its connections."""
    decided = plan(Request(tiny, Mesh(tp=2)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(2 * len(taken) + more) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[more], hard))
    try:
        with pytest.raises(HostError, match="EMFILE") as caught:
            launch(tiny, decided, fake)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit -n" in caught.value.hint
