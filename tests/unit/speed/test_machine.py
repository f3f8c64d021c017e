"""What is told of the machine that figures were taken on."""

from __future__ import annotations

import os
import subprocess
import sys

from speed.machine import own_ticks, pinning, taken, this


def test_parts_of_the_processors_are_parts():
    found = taken([os.getpid()])
    assert 0.0 <= found.others <= 1.0
    assert 0.0 <= found.measured <= 1.0
    assert found.others + found.measured <= 1.0


def test_a_process_that_has_ended_takes_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert own_ticks([process.pid]) == 0
    assert own_ticks([os.getpid()]) > 0


def test_processes_of_one_pinning_are_told_once():
    here = pinning([os.getpid()])
    assert here
    assert pinning([os.getpid(), os.getpid()]) == here


def test_the_machine_is_told_with_the_versions_of_what_is_installed():
    found = this()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_gib > 0
    assert found.packages["numpy"]
    assert all(found.packages.values())
