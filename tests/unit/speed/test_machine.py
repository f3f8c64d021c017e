"""What is told of the machine that figures were taken on."""

from __future__ import annotations

import os

from speed.machine import pinning, taken, this


def test_the_part_that_others_take_is_a_part():
    assert 0.0 <= taken() <= 1.0


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
