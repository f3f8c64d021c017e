"""What a backend needs to know of weights stored in 16 bits: their arrays, and how their numbers are widened.

The engine hands such a weight to a backend as an array of its bits (uint16). Two operators read it, MatMul its right operand
and Gather its table, and `Context.stored` is then its dtype. A backend whose description lists 16-bit `weights` overrides both
in float32; in float64 weights are widened when they are read.
"""

from __future__ import annotations

from unitp.graph.stored import Array, Bits, widened
from unitp.graph.values import in_arrays

__all__ = ["BLOCK_BYTES", "Array", "Bits", "block_rows", "in_arrays", "widened"]

BLOCK_BYTES = 512 << 10
"""Of float32 numbers that are widened at a time, so that a product reads them from the cache."""


def block_rows(columns: int) -> int:
    """Return how many rows of a weight are widened at a time."""
    return max(16, BLOCK_BYTES // (4 * columns))
