"""Hot operators on TensorFlow's kernels; each equals its decomposition to rounding.

TensorFlow has no strided views, so a weight stays as it was loaded, `[n, k]`, and is multiplied with `transpose_b` (22.6 ms
for all products of a SmolLM2 step, 19.9 with a copy `[k, n]`): a tied embedding is held once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from unitp.program.overrides import Overrides, Prepared
from unitp.program.primitives import Primitives
from unitp.program.rank import Context

Tensor = Any
FLOATS = ("float32", "float64")


class Stored(NamedTuple):
    """MatMul's right operand: a parameter as it was loaded, and whether its transpose is meant."""

    weight: Tensor
    transposed: bool


def pack(p: Primitives, weight: Tensor, transposed: bool) -> tuple[Stored, Tensor]:
    return Stored(weight, transposed), weight


overrides = Overrides(pack)


@overrides("MatMul", *FLOATS)
@Prepared
def matmul(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor | Stored], Tensor]:
    x, y = ctx.inputs
    flat = None if x is None or y is None or len(y) > 2 else (prod(x[:-1]), x[-1])

    def step(x: Tensor, y: Tensor | Stored) -> Tensor:
        operand, transposed = y if isinstance(y, Stored) else (y, False)
        if flat is None:
            return tf.matmul(x, operand)
        return tf.reshape(tf.matmul(tf.reshape(x, flat), operand, transpose_b=transposed), ctx.outputs[0])

    return step


@overrides("Softmax", *FLOATS)
@Prepared
def softmax(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    dim = int(ctx.attrs.get("axis", -1))  # type: ignore[arg-type]
    return lambda x: tf.nn.softmax(x, dim)


@overrides("Swish", *FLOATS)
@Prepared
def swish(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    alpha = float(np.float32(ctx.attrs.get("alpha", 1.0)))  # type: ignore[arg-type]
    return lambda x: tf.nn.silu(x, beta=alpha)
