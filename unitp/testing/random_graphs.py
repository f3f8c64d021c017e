"""Small random graphs with everything that sharding rules trip over: odd sizes, diamonds, tied parameters, reduced dims."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph


class _Random:
    """A graph under construction over one running value `x` of shape (b, s, d)."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(f"random-{seed}")
        self.batch, self.seq = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 6))
        self.groups = int(self.rng.integers(1, 4))
        self.heads = self.groups * int(self.rng.integers(1, 4))
        self.head = 2 * int(self.rng.integers(1, 4))
        self.width = int(self.rng.integers(3, 14))
        self.vocab = int(self.rng.integers(5, 20))
        self.count = 0

    def weight(self, *shape: int, offset: float = 0.0) -> str:
        self.count += 1
        return self.b.random(f"w{self.count}", shape, seed=self.count, scale=0.5, offset=offset)

    def embed(self) -> str:
        self.table = self.weight(self.vocab, self.width)
        return str(self.b.Gather(self.table, self.b.input("ids", "int64", (self.batch, self.seq)), axis=0))

    def mlp(self, x: str) -> str:
        hidden = int(self.rng.integers(3, 17))
        act = [self.b.Gelu, self.b.Swish, self.b.Relu, self.b.Tanh][int(self.rng.integers(4))]
        up = act(self.b.MatMul(x, self.weight(self.width, hidden)))
        if self.rng.random() < 0.5:
            up = self.b.Mul(up, self.b.MatMul(x, self.weight(self.width, hidden)))
        down = self.b.MatMul(up, self.b.Transpose(self.weight(self.width, hidden), perm=(1, 0)))
        return str(self.b.Add(down, self.weight(self.width)) if self.rng.random() < 0.5 else down)

    def heads_of(self, x: str, heads: int) -> str:
        y = self.b.MatMul(x, self.weight(self.width, heads * self.head))
        y = self.b.Reshape(y, shape=(self.batch, self.seq, heads, self.head))
        return str(self.b.Transpose(y, perm=(0, 2, 1, 3)))

    def attention(self, x: str) -> str:
        q, k, v = (self.heads_of(x, n) for n in (self.heads, self.groups, self.groups))
        y = self.b.Attention(q, k, v, is_causal=int(self.rng.integers(2)))
        y = self.b.Reshape(self.b.Transpose(y, perm=(0, 2, 1, 3)), shape=(self.batch, self.seq, self.heads * self.head))
        return str(self.b.MatMul(y, self.weight(self.heads * self.head, self.width)))

    def norm(self, x: str) -> str:
        if self.rng.random() < 0.5:
            return str(self.b.RMSNormalization(x, self.weight(self.width, offset=1.0)))
        return str(self.b.LayerNormalization(x, self.weight(self.width, offset=1.0), self.weight(self.width)))

    def parallel(self, x: str) -> str:
        y = self.norm(x)
        return str(self.b.Add(self.attention(y), self.mlp(y)))

    def diamond(self, x: str) -> str:
        left, right = self.b.Sigmoid(x), self.b.Softmax(x, axis=int(self.rng.integers(-2, 0)))
        return str(self.b.Sub(self.b.Mul(left, right), self.b.Max(left, x)))

    def joined(self, x: str) -> str:
        cut = int(self.rng.integers(1, self.width))
        a, b = self.b.Split(x, axis=2, split=(cut, self.width - cut))
        mean = self.b.ReduceMean(x, axes=(1, 2) if self.rng.random() < 0.3 else (2,), keepdims=1)
        return str(self.b.Add(self.b.Concat(b, a, axis=2), mean))

    def picked(self, x: str) -> str:
        centred = self.b.Sub(x, self.b.ReduceMax(x, axes=(1,), keepdims=1))
        return str(self.b.Where(self.b.Less(x, centred), x, self.b.Exp(centred)))

    def ends(self, x: str) -> list[str]:
        """Return the outputs of the graph: tied logits, their top-k and arg-max, a flat sum."""
        x = self.norm(x)
        logits = self.b.MatMul(x, self.b.Transpose(self.table, perm=(1, 0)))
        values, ids = self.b.TopK(logits, k=int(self.rng.integers(1, self.vocab + 1)))
        flat = self.b.Reshape(x, shape=(self.batch * self.seq, self.width))
        total = self.b.Gemm(flat, self.weight(self.width, 3), self.weight(3))
        best = self.b.ArgMax(logits, axis=-1, keepdims=int(self.rng.integers(2)))
        return [
            str(n)
            for n in (self.b.LogSoftmax(logits), values, ids, best, self.b.ReduceSum(total, axes=(0,), keepdims=0))
        ]


def random_graph(seed: int) -> Graph:
    """Return a graph of one to three random blocks between an embedding and its tied head; input: ids int64 (batch, seq)."""
    g = _Random(seed)
    x = g.embed()
    blocks: list[Callable[[str], str]] = [g.mlp, g.attention, g.norm, g.parallel, g.diamond, g.joined, g.picked]
    for _ in range(int(g.rng.integers(1, 4))):
        block = blocks[int(g.rng.integers(len(blocks)))]
        y = block(x)
        x = str(g.b.Add(x, y)) if g.rng.random() < 0.6 else y
    return g.b.graph(*g.ends(x))
