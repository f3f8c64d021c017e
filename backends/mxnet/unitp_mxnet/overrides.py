"""Frequent operators in few calls of MXNet. Each equals its decomposition, up to rounding, in the dtypes listed.

A call costs some microseconds in addition to its work, which is most of the time of the small operators of a decode step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitp.engine import operators as decompositions
from unitp.engine.operators.attention import Run, blocks_of, runs, scale_of
from unitp.engine.overrides import Overrides, Prepared
from unitp.engine.primitives import Primitives
from unitp.program.rank import Context
from unitp_mxnet import primitives
from unitp_mxnet.operators import Tensor, call
from unitp_mxnet.primitives import Rows

FLOATS = ("float32", "float64")


def pack(p: Primitives, weight: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
    """Return MatMul's right operand, and what is stored: the weight as it is. A stored `[n, k]` stands for its transpose."""
    return (Rows(weight) if transposed else weight), weight


overrides = Overrides(pack)


@overrides("RMSNormalization", *FLOATS)
@Prepared
def rms_normalization(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """Take the mean as a product with (1/n, ..., 1/n), which MXNet computes ten times faster than a reduction."""
    size = ctx.outputs[0][-1]
    epsilon = ctx.attrs.rounded("epsilon")
    even = p.full((1, size), 1 / size, ctx.dtype)

    def step(x: Tensor, scale: Tensor) -> Tensor:
        mean = primitives.linear(call("square", x), even)
        return p.mul(p.mul(x, call("rsqrt", p.add(mean, p.full((), epsilon, ctx.dtype)))), scale)

    return step


@overrides("RotaryEmbedding", *FLOATS)
@Prepared
def rotary_embedding(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Compute x * (c, c) + (x E) * (s, s), where E turns the pairs (a, b) of a head to (-b, a). All layers share the angles."""
    batch, _, seq, size = ctx.outputs[0]
    if ctx.attrs.whole("rotary_embedding_dim") not in (0, size):
        general = decompositions.get("RotaryEmbedding")
        return lambda *inputs: general(p, ctx, *inputs)
    pairs = np.arange(size).reshape((-1, 2) if ctx.attrs.truth("interleaved") else (2, -1))
    first, second = pairs.T if ctx.attrs.truth("interleaved") else pairs
    turn = np.zeros((size, size), ctx.dtype)
    turn[first, second], turn[second, first] = -1, 1
    exchange = p.from_numpy(turn)
    places = np.empty(size, "int64")
    places[first] = places[second] = np.arange(size // 2)
    twice = p.from_numpy(places)

    def step(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        angles = (p.take(p.take(table, positions, 0), twice, 2) for table in (cos, sin))
        c, s = (p.reshape(a, (batch, 1, seq, size)) for a in angles)
        return p.add(p.mul(x, c), p.mul(primitives.linear(x, exchange), s))

    return step


@overrides("Attention", *FLOATS)
@Prepared
def attention(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Compute attention of queries that see the first keys, up to a number; the decomposition serves masks and soft caps."""
    if (len(ctx.inputs) > 3 and ctx.inputs[3] is not None) or ctx.attrs.truth("softcap"):
        general = decompositions.get("Attention")
        return lambda *inputs: general(p, ctx, *inputs)
    q_shape, k_shape = ctx.inputs[0] or (1, 1, 1, 1), ctx.inputs[1] or (1, 1, 1, 1)
    scale = scale_of(ctx)
    heads = _by_rows if ctx.dtype == "float32" and q_shape[2] >= MANY else _by_batch

    def step(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        q = p.mul(q, p.full((), scale, ctx.dtype))
        bounds = _bounds(p, ctx, q_shape[2], k_shape[2], rest[3] if len(rest) > 3 else None)
        done = []
        for a, b in blocks_of(ctx):
            rows, seen = (q, bounds) if b - a == q_shape[2] else (p.slice(q, 2, a, b), _cut(p, bounds, a, b))
            parts = [heads(p, run, rows, k, v, seen) for run in runs(ctx)]
            done.append(parts[0] if len(parts) == 1 else p.concat(parts, 1))
        return done[0] if len(done) == 1 else p.concat(done, 2)

    return step


def _cut(p: Primitives, bounds: Tensor | None, a: int, b: int) -> Tensor | None:
    return None if bounds is None else p.slice(bounds, 3, a, b)


MANY = 16
"""From this many queries on, MXNet is faster with unbatched products and a softmax without lengths."""


def _bounds(p: Primitives, ctx: Context, queries: int, keys: int, length: Tensor | None) -> Tensor | None:
    """Return the number of keys that each query sees, [batch or 1, 1, 1, queries]; None: all.

    It is at most the number of keys, because MXNet does not check it.
    """
    causal = ctx.attrs.truth("is_causal")
    rows = p.reshape(p.arange(1, queries + 1, "int64"), (1, 1, 1, queries))
    most = p.full((1, 1, 1, queries), keys, "int64")
    if length is None:
        return p.minimum(rows, most) if causal else None
    valid = p.reshape(p.cast(length, "int64"), (-1, 1, 1, 1))
    if causal:
        most = p.minimum(most, p.add(rows, p.sub(valid, p.full((), queries, "int64"))))
    return p.maximum(p.minimum(most, valid), p.full((), 0, "int64"))


def _by_batch(p: Primitives, run: Run, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None) -> Tensor:
    """Compute a batched product over the KV heads, and a softmax by the number of keys that each row sees (0 keys: zeros)."""
    batch, _, queries, size = q.shape
    rows = (batch, run.groups, run.share * queries)
    mine = p.reshape(_heads(p, q, run.head, run.groups * run.share), (*rows, size))
    scores = call("_linalg_gemm2", mine, _heads(p, k, run.group, run.groups), transpose_b=True)
    if bounds is None:
        weights = call("softmax", scores, axis=3)
    else:
        lengths = p.reshape(p.expand(bounds, (batch, run.groups, run.share, queries)), rows)
        weights = call("softmax", scores, lengths, axis=3, use_length=True)
    out = call("_linalg_gemm2", weights, _heads(p, v, run.group, run.groups))
    return p.reshape(out, (batch, run.groups * run.share, queries, v.shape[3]))


def _by_rows(p: Primitives, run: Run, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None) -> Tensor:
    """Compute products of rows, for each batch entry and KV head by itself. Unseen keys get a huge negative score."""
    (batch, _, queries, size), keys = q.shape, k.shape[2]
    if bounds is not None:
        seen = p.less(p.arange(0, keys, "int64"), p.reshape(bounds, (-1, queries, 1)))
        bias = p.where(seen, p.full((), 0, "float32"), p.full((), UNSEEN, "float32"))
        any_seen = p.cast(p.reshape(p.less(p.full((), 0, "int64"), bounds), (-1, 1, queries, 1)), "float32")
    entries = []
    for entry in range(batch):
        groups = []
        for group in range(run.groups):
            head = run.head + group * run.share
            mine = p.reshape(_part(p, q, entry, head, run.share), (run.share * queries, size))
            key, value = (p.reshape(_part(p, x, entry, run.group + group, 1), x.shape[2:]) for x in (k, v))
            scores = p.reshape(primitives.linear(mine, key), (run.share, queries, keys))
            if bounds is not None:
                scores = p.add(scores, bias if bias.shape[0] == 1 else p.slice(bias, 0, entry, entry + 1))
            weights = p.reshape(call("softmax", scores, axis=2), (run.share * queries, keys))
            out = primitives.linear(weights, p.transpose(value, (1, 0)))
            groups.append(p.reshape(out, (1, run.share, queries, v.shape[3])))
        entries.append(groups[0] if len(groups) == 1 else p.concat(groups, 1))
    whole = entries[0] if len(entries) == 1 else p.concat(entries, 0)
    return whole if bounds is None else p.mul(whole, any_seen)


UNSEEN = -1e30


def _part(p: Primitives, x: Tensor, entry: int, head: int, heads: int) -> Tensor:
    return _heads(p, x if x.shape[0] == 1 else p.slice(x, 0, entry, entry + 1), head, heads)


def _heads(p: Primitives, x: Tensor, first: int, count: int) -> Tensor:
    return x if x.shape[1] == count else p.slice(x, 1, first, first + count)
