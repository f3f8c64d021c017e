"""Seconds of local work: the larger of arithmetic and memory traffic, and an overhead per operator.

operator    max(flops / F, bytes / B) + overhead          Williams, Waterman, Patterson, "Roofline", 2009
copy        2 bytes / B + overhead                        each byte is read and written

Where ranks are unlike, each does its own part at its own speed, and the operator lasts as long as the slowest.
"""

from __future__ import annotations

from unitp.cost.machine import Device, Machine


def operator_seconds(machine: Machine | Device, flops: float, nbytes: float, dtype: str = "float32") -> float:
    """Seconds of an operator that does `flops` operations and moves `nbytes` between memory and core."""
    speed = machine.flops(dtype) if isinstance(machine, Device) else machine.flops_per_s
    return max(flops / speed, nbytes / machine.memory_bytes_per_s) + machine.operator_s


def copy_seconds(machine: Machine | Device, nbytes: float) -> float:
    """Seconds of a slice or any other copy of `nbytes`."""
    return 2 * nbytes / machine.memory_bytes_per_s + machine.operator_s
