"""Ranks get the CPUs that the driver was allowed, also where an OpenMP library bound the driver to one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from unitp import cpus

LOOK = """
import json, os
{before}
import torch
from unitp.cpus import allowed
print(json.dumps([sorted(os.sched_getaffinity(0)), sorted(allowed())]))
"""


def seen(before: str = "pass", **environment: str) -> list[list[int]]:
    """What a driver with torch in it is bound to, and what its ranks are allowed."""
    line = [sys.executable, "-P", "-c", LOOK.format(before=before)]
    done = subprocess.run(line, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_a_driver_that_openmp_bound_gives_its_ranks_all_cpus() -> None:
    all_cpus = sorted(os.sched_getaffinity(0))
    bound, allowed = seen(OMP_PROC_BIND="true", OMP_NUM_THREADS="1")
    assert allowed == all_cpus
    assert len(bound) == 1  # else this test shows nothing


def test_what_the_user_allowed_is_not_exceeded() -> None:
    last = max(os.sched_getaffinity(0))
    assert seen(f"os.sched_setaffinity(0, {{{last}}})", OMP_PROC_BIND="true") == [[last], [last]]


def test_without_binding_the_affinity_of_the_driver_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cpus.BINDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert cpus.allowed() == {3, 5}
