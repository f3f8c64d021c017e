"""Frequent operators on PyTorch's fused kernels. Each equals its decomposition, up to rounding.

A weight is stored in large pages, with its longer dim contiguous. The product of one row with `[k, n]` reads 1536 columns at
18 GB/s and 192 columns at 7.5; the product with `[n, k]` reads rows of 1536 at 16 GB/s and rows of 576 at 10.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name that everybody knows)

from unitp.engine import operators as decompositions
from unitp.engine.operators.attention import Run, runs, scale_of
from unitp.engine.overrides import Overrides, Prepared
from unitp.engine.primitives import Primitives
from unitp.program.rank import Context

FLOATS = ("float32", "float64")
FEW = 16
"""Up to this many queries of a group, attention without the fused kernel is faster."""


def pack(p: Primitives, weight: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
    """Return MatMul's right operand, a view of the weight: `unitp_torch.executor.keep` has stored it in the form that is fastest."""
    return (weight.t() if transposed else weight), weight


overrides = Overrides(pack)


@overrides("MatMul", *FLOATS)
@Prepared
def matmul(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    x, y = ctx.inputs
    if x is None or y is None or len(y) > 2:
        return lambda x, y: torch.matmul(x, y)
    rows, columns, out = prod(x[:-1]), x[-1], ctx.outputs[0]
    return lambda x, y: torch.mm(x.reshape(rows, columns), y).view(out)


@overrides("RMSNormalization", *FLOATS)
@Prepared
def rms_normalization(p: Primitives, ctx: Context) -> Callable[[Tensor, Tensor], Tensor]:
    size, epsilon = ctx.outputs[0][-1], ctx.attrs.rounded("epsilon")
    return lambda x, scale: F.rms_norm(x, (size,), scale, epsilon)


@overrides("LayerNormalization", *FLOATS)
@Prepared
def layer_normalization(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    size, epsilon = ctx.outputs[0][-1], ctx.attrs.rounded("epsilon")
    return lambda x, scale, bias=None: F.layer_norm(x, (size,), scale, bias, epsilon)


@overrides("Softmax", *FLOATS)
@Prepared
def softmax(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    dim = ctx.attrs.whole("axis")
    return lambda x: torch.softmax(x, dim)


@overrides("Swish", *FLOATS)
@Prepared
def swish(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    alpha = ctx.attrs.rounded("alpha")
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(x * alpha)


@overrides("Gelu", *FLOATS)
@Prepared
def gelu(p: Primitives, ctx: Context) -> Callable[[Tensor], Tensor]:
    approximate = ctx.attrs.word("approximate")
    return lambda x: F.gelu(x, approximate=approximate)


@overrides("RotaryEmbedding", *FLOATS)
@Prepared
def rotary_embedding(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Rotate pairs: interleaved ones as complex numbers, `(a + ib)(cos + i sin)`, others as two halves."""
    shape, interleaved = ctx.outputs[0], ctx.attrs.truth("interleaved")
    size = ctx.attrs.whole("rotary_embedding_dim") or shape[3]
    if size < shape[3]:
        general = decompositions.get("RotaryEmbedding")
        return lambda *inputs: general(p, ctx, *inputs)
    half, pairs = size // 2, (*shape[:3], size // 2, 2)
    angles = (shape[0], 1, shape[2], half)

    def step(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        at = positions.reshape(-1)  # index_select takes half the time of a subscript
        c, s = cos.index_select(0, at).view(angles), sin.index_select(0, at).view(angles)
        if interleaved:
            turned = torch.view_as_complex(x.reshape(pairs)) * torch.complex(c, s)
            return torch.view_as_real(turned).reshape(shape)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * c - b * s, a * s + b * c), -1)

    return step


@overrides("Attention", *FLOATS)
@Prepared
def attention(p: Primitives, ctx: Context) -> Callable[..., Tensor]:
    """Call `scaled_dot_product_attention` over the valid keys, for each run of query heads that share KV heads evenly.

    The decomposition serves masks, soft caps, and sequences of different lengths. `enable_gqa` is not used: it does not check
    that heads divide; each run is shaped so that they do.
    """
    general = decompositions.get("Attention")
    if (len(ctx.inputs) > 3 and ctx.inputs[3] is not None) or ctx.attrs.truth("softcap"):
        return lambda *inputs: general(p, ctx, *inputs)
    queries, keys = (shape[2] if shape else 0 for shape in ctx.inputs[:2])
    causal = ctx.attrs.truth("is_causal")
    scale = scale_of(ctx)
    head_runs = runs(ctx)

    def step(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        n = rest[3] if len(rest) > 3 else None
        lengths = [keys] if n is None else n.tolist()
        last = lengths[0]
        if min(lengths) != max(lengths) or last < queries or (causal and n is None and queries != keys):
            return general(p, ctx, q, k, v, *rest)
        seen = None
        if causal and queries > 1:
            seen = torch.ones(queries, last, dtype=torch.bool).tril(last - queries)
        return _attend(head_runs, q, k[:, :, :last], v[:, :, :last], seen, scale)

    return step


def _attend_all(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Compute attention of few queries to all keys by two products and a softmax, which start faster than the fused kernel."""
    if q.shape[2] > FEW:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    return torch.matmul(torch.softmax(torch.matmul(q * scale, k.transpose(2, 3)), -1), v)


def _attend(head_runs: list[Run], q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float) -> Tensor:
    batch, _, queries, size = q.shape
    parts = []
    for head, group, groups, share in head_runs:
        rows = q[:, head : head + groups * share].reshape(batch, groups, share, queries, size)
        own = (k[:, group : group + groups].unsqueeze(2), v[:, group : group + groups].unsqueeze(2))
        if seen is None:
            flat = rows.reshape(batch, groups, share * queries, size)
            out = _attend_all(flat, own[0].squeeze(2), own[1].squeeze(2), scale)
        else:
            keys, values = (t.expand(-1, -1, share, -1, -1).flatten(0, 1) for t in own)
            out = F.scaled_dot_product_attention(rows.flatten(0, 1), keys, values, attn_mask=seen, scale=scale)
        parts.append(out.reshape(batch, groups * share, queries, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
