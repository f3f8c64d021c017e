"""ONNX operators, each written once over the local primitives; a backend's overrides replace the hot ones.

An implementation is `fn(p, ctx, *inputs)`: the primitives, the `unitp.program.rank.Context`, local arrays (None where
an input is absent or this rank holds nothing of it). It returns the output, or a tuple of several, in the shapes and
dtypes of the context, and is not called where all outputs are empty. A `Prepared` one reads attributes before the first
call. Nothing is checked: rules and guards did that, and whatever a framework raises ends the rank. Results are exact to
rounding in float64; float attributes are their float32 rounding, widened.
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
