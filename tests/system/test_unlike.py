"""On two heterogeneous devices the plan whose bounds follow their speed is faster than the even one: predicted, and measured."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import unitp
from unitp.mesh import Mesh

BENCH = Path(__file__).parents[1] / "bench" / "unlike.py"


def test_bounds_that_follow_speed_are_predicted_to_beat_even_ones() -> None:
    bench = runpy.run_path(str(BENCH))
    model, machine = unitp.load("smollm2-135m"), bench["two_devices"]()
    even, weighted = unitp.plan(model, Mesh(tp=2)), unitp.plan(model, Mesh(tp=2), machine=machine)
    predicted = [bench["predicted_s"](made, model, machine) for made in (weighted, even)]
    assert predicted[0] / predicted[1] < 0.85


@pytest.mark.system
@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks want two cores")
def test_bounds_that_follow_speed_beat_even_ones() -> None:
    command = [sys.executable, str(BENCH), "--json", "--tokens", "256", "--rounds", "3"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert answer.stdout, answer.stderr
    found = json.loads(answer.stdout)
    if found["ratio"] is None:
        pytest.skip(f"the machine was too busy: all of {found['disturbed']} rounds were disturbed")
    assert found["ratio"] < 0.95
