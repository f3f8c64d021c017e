"""A few of the random faults of `make faults`: a seed that has every kind of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[1] / "shared" / "faults.py"


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backends,count", [("numpy,torch", 6), ("torch/mpi,mxnet/mpi", 2)])
def test_random_faults_end_in_an_error_or_a_result_and_leave_nothing(backends: str, count: int) -> None:
    command = [sys.executable, str(FAULTS), "--seed", "28", "--count", str(count), "--backends", backends]
    tried = subprocess.run(command, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert f"{count} of {count} faults passed" in tried.stdout
