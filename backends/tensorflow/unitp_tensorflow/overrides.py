"""Frequent operators on TensorFlow's kernels. Each equals its decomposition, up to rounding.

TensorFlow has no strided views, so a weight stays as it was loaded, `[n, k]`, and is multiplied with `transpose_b` (22.6 ms
for all products of a SmolLM2 step, 19.9 with a copy `[k, n]`): a tied embedding is held once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from unitp.engine import operators as decompositions
from unitp.engine.operators.attention import Run, allowed_keys, blocks_of, runs, scale_of
from unitp.engine.overrides import Overrides, Prepared
from unitp.engine.primitives import Primitives
from unitp.program.rank import Context
from unitp_tensorflow.primitives import slice as slice_of

Tensor = Any
FLOATS = ("float32", "float64")


class Stored(NamedTuple):
    """MatMul's right operand: a parameter as it was loaded, and whether it stands for its transpose."""

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
    dim = ctx.attrs.whole("axis")
    return lambda x: tf.nn.softmax(x, dim)


@overrides("Swish", *FLOATS)
@Prepared
def swish(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    alpha = ctx.attrs.rounded("alpha")
    return lambda x: tf.nn.silu(x, beta=alpha)


@overrides("Attention", *FLOATS)
@Prepared
def attention(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Compute attention with the fused softmax; keys that a query does not see get a bias that gives them no weight.

    The decomposition serves masks and soft caps.
    """
    general = decompositions.get("Attention")
    if (len(ctx.inputs) > 3 and ctx.inputs[3] is not None) or ctx.attrs.truth("softcap"):
        return lambda *inputs: general(p, ctx, *inputs)
    scale = scale_of(ctx)
    hidden = np.dtype(ctx.dtype).type(np.finfo(ctx.dtype).min / 2)  # a score added to it stays finite
    head_runs, cuts = runs(ctx), blocks_of(ctx)

    def step(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        seen = allowed_keys(p, ctx, rest[3] if len(rest) > 3 else None)
        bias = None if seen is None else tf.where(seen, np.zeros_like(hidden), hidden)
        q, done = q * tf.constant(scale, q.dtype), []
        for a, b in cuts:
            rows = q if len(cuts) == 1 else q[:, :, a:b]
            own = bias if bias is None or bias.shape[2] in (1, b - a) else bias[:, :, a:b]
            parts = [_attend(run, rows, k, v, own) for run in head_runs]
            done.append(parts[0] if len(parts) == 1 else tf.concat(parts, 1))
        out = done[0] if len(done) == 1 else tf.concat(done, 2)
        return out if seen is None else out * tf.cast(tf.reduce_any(seen, 3, keepdims=True), out.dtype)

    return step


def _attend(run: Run, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Compute one run of query heads that share KV heads evenly.

    `k` and `v` may be variables. They are not subscripted, because that would keep a variable alive as long as the graph.
    """
    batch, _, queries, size = q.shape
    heads = run.groups * run.share
    keys, values = (slice_of(x, 1, run.group, run.group + run.groups) for x in (k, v))
    rows = tf.reshape(q[:, run.head : run.head + heads], (batch, run.groups, run.share * queries, size))
    scores = tf.matmul(rows, keys, transpose_b=True)
    if bias is not None:
        scores = tf.reshape(tf.reshape(scores, (batch, heads, queries, -1)) + bias, scores.shape)
    out = tf.matmul(tf.nn.softmax(scores), values)
    return tf.reshape(out, (batch, heads, queries, -1))
