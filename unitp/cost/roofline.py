"""Seconds of local work on a device (`unitp.cost.device`), in the words of the roofline: arithmetic or memory, and an overhead.

    operator      max(flops / F, bytes / B) + o       Williams, Waterman, Patterson, "Roofline", 2009
    contraction   flops / F(rows) + o                 where the device has a table of F
    view          o, where the device lists the operator, else nothing
    copy          2 bytes / B + o                     each byte is read and written

Where ranks are unlike, each does its own part at its own speed, and the operator lasts as long as the slowest.
"""

from __future__ import annotations

from unitp.cost.device import Device, at_rows


def operator_seconds(
    device: Device, flops: float, nbytes: float, dtype: str = "float32", op: str = "", rows: float = 0.0
) -> float:
    """Seconds of an operator that does `flops` operations and moves `nbytes` between memory and core.

    `op`: its name, for what the device knows of it; `rows`: of a contraction, how often each weight is used.
    """
    speed = device.speed(op, dtype)
    if speed.points and rows:
        return flops / float(at_rows(speed.points, rows)) + speed.operator_s
    return max(flops / speed.flops_per_s, nbytes / speed.bytes_per_s) + speed.operator_s


def view_seconds(device: Device, op: str) -> float:
    """Seconds of an operator that moves nothing."""
    rate = device.operators.get(op)
    return 0.0 if rate is None or rate.operator_s is None else rate.operator_s


def copy_seconds(device: Device, nbytes: float) -> float:
    """Seconds of a slice or any other copy of `nbytes`."""
    return 2 * nbytes / device.memory_bytes_per_s + device.operator_s
