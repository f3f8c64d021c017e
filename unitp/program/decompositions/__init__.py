"""ONNX operators, each written once over the local primitives; a backend's overrides replace the hot ones.

An implementation is `fn(p, ctx, *inputs)`: the primitives, the `unitp.program.rank.Context`, local arrays (None where an
input is absent or this rank holds nothing of it). It returns the output, or a tuple of several. It is not called where all
outputs are empty. Every result is exact in float64; constants and float attributes are widened from their float32 rounding.
"""

from unitp.program.decompositions import (  # noqa: F401  (they register)
    attention,
    elementwise,
    linear,
    lookup,
    norm,
    reduction,
    shaping,
)
from unitp.program.decompositions.registry import decomposition, get, ops

__all__ = ["decomposition", "get", "ops"]
