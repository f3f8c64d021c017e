"""Seconds of local work: the larger of arithmetic and memory traffic, and an overhead per operator.

operator    max(flops / F, bytes / B) + overhead          Williams, Waterman, Patterson, "Roofline", 2009
copy        2 bytes / B + overhead                        each byte is read and written
"""

from __future__ import annotations

from unitp.cost.machine import Machine


def operator_seconds(machine: Machine, flops: float, nbytes: float) -> float:
    """Seconds of an operator that does `flops` operations and moves `nbytes` between memory and core."""
    return max(flops / machine.flops_per_s, nbytes / machine.memory_bytes_per_s) + machine.operator_s


def copy_seconds(machine: Machine, nbytes: float) -> float:
    """Seconds of a slice or any other copy of `nbytes`."""
    return 2 * nbytes / machine.memory_bytes_per_s + machine.operator_s
