"""Seconds of local work on a device, by the roofline model: the slower of arithmetic and memory, and an overhead.

    operator      max(flops / F, bytes / B) + o       Williams, Waterman, Patterson, "Roofline", 2009
    contraction   flops / F(rows) + o                 if the device has a table of F
    view          o if the device lists the operator, else 0
    copy          2 bytes / B + o                     each byte is read and written

`unitp.cost.device` has F, B and o. If devices are heterogeneous, each rank does its own part at its own speed, and the operator
takes as long as the slowest rank (`unitp.planner.prices.work`).
"""

from __future__ import annotations

from unitp.cost.device import Device, at_rows


def operator_seconds(
    device: Device, flops: float, nbytes: float, dtype: str = "float32", op: str = "", rows: float = 0.0
) -> float:
    """Return the seconds of one call of an operator on a device.

    flops    floating-point operations
    nbytes   bytes that it reads from memory and writes to it
    op       its name; the device may list numbers for it
    rows     for a contraction, how often each weight is used (0: unknown, the roofline holds)
    """
    speed = device.speed(op, dtype)
    if speed.points and rows:
        return flops / float(at_rows(speed.points, rows)) + speed.operator_s
    return max(flops / speed.flops_per_s, nbytes / speed.bytes_per_s) + speed.operator_s


def view_seconds(device: Device, op: str) -> float:
    """Return the seconds of an operator whose result is a view, which moves no data."""
    rate = device.operators.get(op)
    return 0.0 if rate is None or rate.operator_s is None else rate.operator_s


def copy_seconds(device: Device, nbytes: float) -> float:
    """Return the seconds of a slice or another copy of `nbytes` bytes."""
    return 2 * nbytes / device.memory_bytes_per_s + device.operator_s
