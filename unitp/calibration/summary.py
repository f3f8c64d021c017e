"""The result of a calibration in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from unitp.calibration.probes import WIDTH
from unitp.cost import Device, Machine, collective_seconds
from unitp.cost.link import KINDS


def summary(machine: Machine) -> Iterator[str]:
    """Yield lines on each device and on the collectives between its ranks."""
    for name, device in machine.devices.items():
        yield f"{name}, one rank: {_device(device)}"
        for ranks, busy in device.busy.items():
            yield f"{name}, {ranks} ranks: {_device(busy)}"
            for kind in KINDS:
                took = [collective_seconds(machine.link, kind, ranks, 4.0 * rows * WIDTH) * 1e6 for rows in (1, 256)]
                yield f"  {kind} of 2 KiB {took[0]:.0f} us, of 576 KiB {took[1]:.0f} us"


def _device(device: Device) -> str:
    points = device.matmul["float32"]
    return (
        f"{2 * points[0][1] / 1e9:.1f} GB/s in products of one row, {points[-1][1] / 1e9:.0f} GFLOP/s in those of "
        f"{points[-1][0]:.0f}, {device.operator_s * 1e6:.1f} us an addition, {device.program_s * 1e6:.0f} us a call"
    )
