"""Seconds of local work: the larger of arithmetic and memory traffic, and an overhead per operator."""

from __future__ import annotations

from unitp.cost.machine import Machine


def operator_seconds(machine: Machine, flops: float, nbytes: float) -> float:
    """`max(flops / F, bytes / B) + overhead` (Williams, Waterman, Patterson 2009)."""
    return max(flops / machine.flops_per_s, nbytes / machine.memory_bytes_per_s) + machine.operator_s


def copy_seconds(machine: Machine, nbytes: float) -> float:
    """A slice: its bytes are read and written."""
    return 2 * nbytes / machine.memory_bytes_per_s + machine.operator_s
