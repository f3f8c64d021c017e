"""How fast a device is: its FLOP/s by dtype, its memory bandwidth, and what it costs to call an operator or a program.

    operator      max(flops / F, bytes / B) + o
    contraction   flops / F(rows) + o                if the device has a table of F; rows: how often each weight is used
    program       p                                  for each call of a program, whatever it does

F, B and o are those that the device lists for the operator, else the device's own. F(rows) is interpolated between measured
rows on logarithmic scales. Of a weight stored in 16 bits, half as many bytes are read, so that it costs what twice as many
rows would per FLOP. A product of one row is limited by reading its weight from memory, a product of many rows by
arithmetic. The ranks of one host share its memory, so a device is slower while others work; `busy` describes it then.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import msgspec
import numpy as np

from unitp.graph.ops import is_contraction

Points = tuple[tuple[float, float], ...]
"""Pairs of rows and FLOP/s, rows ascending."""


class Rate(msgspec.Struct, frozen=True):
    """How fast a device is at one operator; a field that is None is as for the device.

    operator_s    seconds per call
    flops_per_s   FLOP/s in float32
    bytes_per_s   bytes that it reads and writes per second
    """

    operator_s: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None


class Speed(NamedTuple):
    """F, B and o of an operator in a dtype. `points`: F by rows, empty if it does not depend on them."""

    flops_per_s: float
    bytes_per_s: float
    operator_s: float
    points: Points = ()


class Device(msgspec.Struct, frozen=True):
    """One class of devices.

    flops_per_s          FLOP/s by dtype; a dtype that is not listed is as fast as float32
    memory_bytes_per_s   memory bandwidth
    operator_s           seconds to call an operator
    memory_bytes         size of the memory
    matmul               FLOP/s of contractions, by dtype and rows
    operators            operators that differ from the rest
    program_s            seconds that each call of a program costs in addition to its operators
    busy                 the same device by the number of ranks that work on its host at the same time
    """

    flops_per_s: dict[str, float]
    memory_bytes_per_s: float
    operator_s: float
    memory_bytes: float = inf
    matmul: dict[str, Points] = {}
    operators: dict[str, Rate] = {}
    program_s: float = 0.0
    busy: dict[int, Device] = {}

    def flops(self, dtype: str) -> float:
        """Return the FLOP/s in a dtype."""
        return self.flops_per_s.get(dtype, self.flops_per_s["float32"])

    def among(self, ranks: int) -> Device:
        """Return this device while `ranks` ranks work on its host, as measured with that many or the next smaller number."""
        return self.busy[max(known)] if (known := [n for n in self.busy if n <= ranks]) else self

    def speed(self, op: str, dtype: str) -> Speed:
        """Return how fast this device is at an operator in a dtype."""
        rate = self.operators.get(op, NO_RATE)
        general = self.flops(dtype)
        scale = general / self.flops_per_s["float32"]
        return Speed(
            general if rate.flops_per_s is None else rate.flops_per_s * scale,
            self.memory_bytes_per_s if rate.bytes_per_s is None else rate.bytes_per_s,
            self.operator_s if rate.operator_s is None else rate.operator_s,
            self.contractions(dtype) if is_contraction(op) else (),
        )

    def contractions(self, dtype: str) -> Points:
        """Return F by rows for contractions (the second operand is the weight); empty if it was not measured by rows."""
        if not self.matmul:
            return ()
        scale = self.flops(dtype) / self.flops_per_s["float32"]
        return self.matmul.get(dtype) or tuple((n, f * scale) for n, f in self.matmul["float32"])


NO_RATE = Rate()


def at_rows(points: Points, rows: Any) -> Any:
    """Return FLOP/s at a number of rows, interpolated between the measured points; beyond them, that of the nearest point.

    rows   a number, or an array of numbers; the result has its shape
    """
    known, found = np.log(np.array(points).T)
    return np.exp(np.interp(np.log(np.maximum(rows, 1e-9)), known, found))
