"""Attention with grouped heads under masks, and rotary embedding.

    y = softmax(cap(scale * q k^T) + bias) v,  cap(x) = softcap * tanh(x / softcap)

Query head h reads KV head h // r. A rank holds any interval of query heads and the KV heads that these touch, so the
local head map can be irregular (0,0,0,1,1): it falls into runs of KV heads read by equally many query heads, and each
run is one batched product with the query heads of a group as further rows. KV heads are never repeated in memory, and
at most about `SCORES` bytes of scores are held at a time.

Query i of S sees key j if all conditions that apply are true: j <= i, or j <= n - S + i if a sequence has n valid keys (causal);
j < n; the mask is true. The result of a query that sees no key is zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from math import sqrt
from typing import NamedTuple

import numpy as np

from unitp.engine.operators.family import Family, scalar
from unitp.engine.overrides import Prepared
from unitp.engine.primitives import Primitives, Tensor
from unitp.graph.ops.attention import blocks
from unitp.program.rank import Context

decomposition = Family()
"""The decompositions of this module."""


class Run(NamedTuple):
    """`groups` local KV heads from `group` on, each read by `share` query heads, of which `head` is the first."""

    head: int
    group: int
    groups: int
    share: int


def runs(ctx: Context) -> list[Run]:
    """Return the local head map, from the rank's interval of query heads and the global ratio r."""
    queries, keys = ctx.whole[0], ctx.whole[1]
    if queries is None or keys is None:
        return []
    ratio = queries[1] // keys[1]
    start, stop = ctx.intervals.get("h", (0, queries[1]))
    first = start // ratio
    counts = [min(stop, (g + 1) * ratio) - max(start, g * ratio) for g in range(first, -(-stop // ratio))]
    out, head, group = [], 0, 0
    for share, same in groupby(counts):
        groups = len(list(same))
        out.append(Run(head, group, groups, share))
        head, group = head + groups * share, group + groups
    return out


def blocks_of(ctx: Context) -> list[tuple[int, int]]:
    batch, heads, queries, _ = ctx.inputs[0] or (0, 0, 0, 0)
    return blocks(queries, batch * heads * _size(ctx, 1) * np.dtype(ctx.dtype).itemsize)


def scale_of(ctx: Context) -> float:
    """Return the factor of the scores: the attribute, or 1/sqrt(e) for queries [b, h, s, e], rounded to float32."""
    if "scale" in ctx.attrs:
        return ctx.attrs.rounded("scale")
    return float(np.float32(1 / sqrt((ctx.inputs[0] or (1,))[-1])))


@decomposition("Attention")
@Prepared
def attention(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Return attention of queries [b, h, s, e] to keys [b, g, t, e] and values [b, g, t, f], as [b, h, s, f].

    mask     which keys each query sees (bool), or what is added to its scores; it broadcasts to [b, h, s, t]
    length   the number of valid keys of each sequence [b]
    """
    scale, softcap = scale_of(ctx), ctx.attrs.rounded("softcap")
    cuts, head_runs = blocks_of(ctx), runs(ctx)

    def step(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor = None,
        past_key: Tensor = None,
        past_value: Tensor = None,
        length: Tensor = None,
    ) -> Tensor:
        allowed = allowed_keys(p, ctx, length)
        bias = None
        if mask is not None:
            mask = p.reshape(mask, (*(1,) * (4 - len(p.shape(mask))), *p.shape(mask)))
            if p.dtype(mask) == "bool":
                allowed = mask if allowed is None else p.logical_and(allowed, mask)
            else:
                bias = mask
        q = p.mul(q, scalar(p, scale, ctx.dtype))
        done = []
        for block in cuts:
            rows, seen, added = (None if x is None else _queries(p, x, block) for x in (q, allowed, bias))
            parts = [_run(p, ctx, run, rows, k, v, seen, added, softcap) for run in head_runs]
            done.append(parts[0] if len(parts) == 1 else p.concat(parts, 1))
        return done[0] if len(done) == 1 else p.concat(done, 2)

    return step


def _queries(p: Primitives, x: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the rows of a block of queries (dim 2); a single one stands for all."""
    held = p.shape(x)[2]
    return x if held in (1, block[1] - block[0]) else p.slice(x, 2, *block)


def _run(
    p: Primitives,
    ctx: Context,
    run: Run,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor | None,
    bias: Tensor | None,
    softcap: float,
) -> Tensor:
    batch, _, queries, size = p.shape(q)
    heads = run.groups * run.share
    keys = _heads(p, k, run.group, run.groups)
    rows = p.reshape(_heads(p, q, run.head, heads), (batch, run.groups, run.share * queries, size))
    scores = p.matmul(rows, p.transpose(keys, (0, 1, 3, 2)))
    scores = p.reshape(_capped(p, ctx, scores, softcap), (batch, heads, queries, p.shape(k)[2]))
    if bias is not None:
        scores = p.add(scores, _heads(p, bias, run.head, heads))
    weights = _softmax(p, ctx, scores, None if allowed is None else _heads(p, allowed, run.head, heads))
    weights = p.reshape(weights, (batch, run.groups, run.share * queries, p.shape(k)[2]))
    values = _heads(p, v, run.group, run.groups)
    return p.reshape(p.matmul(weights, values), (batch, heads, queries, p.shape(v)[3]))


def _heads(p: Primitives, x: Tensor, first: int, count: int) -> Tensor:
    """Return `count` of the heads (dim 1) from `first` on; a single head stands for all."""
    held = p.shape(x)[1]
    return x if held in (1, count) else p.slice(x, 1, first, first + count)


def _capped(p: Primitives, ctx: Context, scores: Tensor, softcap: float) -> Tensor:
    if softcap <= 0:
        return scores
    cap = scalar(p, softcap, ctx.dtype)
    return p.mul(p.tanh(p.div(scores, cap)), cap)


def allowed_keys(p: Primitives, ctx: Context, length: Tensor | None) -> Tensor | None:
    """Return which keys each query sees by causality and valid length: [batch or 1, 1, queries or 1, keys], or None for all."""
    causal = ctx.attrs.truth("is_causal")
    if not causal and length is None:
        return None
    queries, keys = _size(ctx, 0), _size(ctx, 1)
    places = p.reshape(p.arange(0, keys, "int64"), (1, 1, 1, keys))
    rows = p.reshape(p.arange(1, queries + 1, "int64"), (1, 1, queries, 1))
    if length is None:
        return p.less(places, rows)
    valid = p.reshape(p.cast(length, "int64"), (p.shape(length)[0], 1, 1, 1))
    if not causal:
        return p.less(places, valid)
    bounds = p.add(rows, p.sub(valid, scalar(p, queries, "int64")))
    return p.less(places, p.minimum(bounds, valid))


def _size(ctx: Context, position: int) -> int:
    shape = ctx.inputs[position]
    return shape[2] if shape is not None else 0


def _softmax(p: Primitives, ctx: Context, scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Return the softmax over the allowed keys: the others get the lowest score before the maximum, and weight 0 after it."""
    zero = scalar(p, 0, ctx.dtype)
    lowest = scalar(p, float(np.finfo(ctx.dtype).min), ctx.dtype)
    if allowed is not None:
        scores = p.where(allowed, scores, lowest)
    top = p.maximum(p.reduce_max(scores, (3,), True), lowest)
    weights = p.exp(p.sub(scores, top))
    if allowed is not None:
        weights = p.where(allowed, weights, zero)
    total = p.reduce_sum(weights, (3,), True)
    return p.div(weights, p.where(p.equal(total, zero), scalar(p, 1, ctx.dtype), total))


@decomposition("RotaryEmbedding")
@Prepared
def rotary_embedding(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return x [b, h, s, e] turned by tables of angles (cos and sin, [p, r/2]) at `positions` [b, s].

    Pairs of the first r entries of a head turn; the rest passes through. Pairs are (i, i + r/2), or (2i, 2i + 1) where
    interleaved.
    """
    shape, interleaved = ctx.outputs[0], ctx.attrs.truth("interleaved")
    size = ctx.attrs.whole("rotary_embedding_dim") or shape[3]
    half = size // 2

    def step(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        angles = (p.shape(positions)[0], 1, shape[2], half)
        c, s = (p.reshape(p.take(table, positions, 0), angles) for table in (cos, sin))
        turned = p.slice(x, 3, 0, size) if size < shape[3] else x
        if interleaved:
            pairs = p.reshape(turned, (*shape[:3], half, 2))
            first, second = (p.reshape(p.slice(pairs, 4, i, i + 1), (*shape[:3], half)) for i in (0, 1))
            done = [p.reshape(part, (*shape[:3], half, 1)) for part in _turn(p, first, second, c, s)]
            turned = p.reshape(p.concat(done, 4), (*shape[:3], size))
        else:
            turned = p.concat(_turn(p, p.slice(turned, 3, 0, half), p.slice(turned, 3, half, size), c, s), 3)
        return turned if size == shape[3] else p.concat([turned, p.slice(x, 3, size, shape[3])], 3)

    return step


def _turn(p: Primitives, first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
    return [
        p.sub(p.mul(first, cos), p.mul(second, sin)),
        p.add(p.mul(first, sin), p.mul(second, cos)),
    ]
