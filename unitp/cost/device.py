"""How fast a device is: at arithmetic by dtype, at memory, at calling an operator; and, where it was measured, operator by operator.

    operator      max(flops / F, bytes / B) + o
    contraction   flops / F(rows) + o                where the device has a table of F; rows: how often a weight is used
    program       p                                  each call of a program, whatever it does

F, B and o are those of the operator where the device lists it, else its own. F(rows) is interpolated, logarithm by
logarithm, between the rows that were measured: one row reads a matrix as fast as memory gives it, many are arithmetic.
Ranks of one host share its memory: what holds while several of them work is a device of its own (`busy`).
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import msgspec
import numpy as np

from unitp.graph.ops import is_contraction

Points = tuple[tuple[float, float], ...]
"""Rows and FLOP/s, rows ascending."""


class Rate(msgspec.Struct, frozen=True):
    """What is known of one operator. What is None is the device's. `flops_per_s`: in float32."""

    operator_s: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None


class Speed(NamedTuple):
    """F, B and o of an operator in a dtype; `points`: F by rows, where it depends on them."""

    flops_per_s: float
    bytes_per_s: float
    operator_s: float
    points: Points = ()


class Device(msgspec.Struct, frozen=True):
    """One class of devices. A dtype that `flops_per_s` does not list is as fast as float32.

    `matmul`: FLOP/s of contractions by dtype and rows; `operators`: by operator; `program_s`: what each call of a program
    costs beside its operators; `busy`: the same device while so many ranks of its host work.
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
        """FLOP/s in a dtype."""
        return self.flops_per_s.get(dtype, self.flops_per_s["float32"])

    def among(self, ranks: int) -> Device:
        """This device while so many ranks of its host work: as measured with that many, or with the nearest fewer."""
        return self.busy[max(known)] if (known := [n for n in self.busy if n <= ranks]) else self

    def speed(self, op: str, dtype: str) -> Speed:
        """How fast an operator is in a dtype."""
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
        """F of contractions (of two operands, the second the weight) by rows; nothing where it was not measured so."""
        if not self.matmul:
            return ()
        scale = self.flops(dtype) / self.flops_per_s["float32"]
        return self.matmul.get(dtype) or tuple((n, f * scale) for n, f in self.matmul["float32"])


NO_RATE = Rate()


def at_rows(points: Points, rows: Any) -> Any:
    """FLOP/s at so many rows (a number, or an array of them), from the points measured; beyond them, the nearest."""
    known, found = np.log(np.array(points).T)
    return np.exp(np.interp(np.log(np.maximum(rows, 1e-9)), known, found))
