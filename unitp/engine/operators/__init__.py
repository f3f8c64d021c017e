"""ONNX operators, each written once over the local primitives; a backend's overrides replace the hot ones.

An implementation is `fn(p, ctx, *inputs)`: the primitives, the `unitp.program.rank.Context`, local arrays (None where
an input is absent or this rank holds nothing of it). It returns the output, or a tuple of several, and is not called
where all outputs are empty. Results are exact to rounding in float64; float attributes are their float32 rounding,
widened.
"""

from unitp.engine.operators import (  # noqa: F401  (they register)
    attention,
    elementwise,
    linear,
    lookup,
    norm,
    reduction,
    shaping,
)
from unitp.engine.operators.decompositions import decomposition, get, ops

__all__ = ["decomposition", "get", "ops"]
