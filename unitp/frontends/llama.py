"""The graph of a Llama-type decoder: grouped attention with rotary positions and caches, gated MLP, a head with candidates.

Inputs of a call with S tokens per sequence after p old ones: `input_ids`, `position_ids` (p, p+1, ...), `write_indices` (p),
`kv_length` (p + S), and `logits_index`, the positions whose logits are wanted. Outputs: `logits` of those positions, and the
`candidates` largest of them with their ids. Caches are written in place and read up to `live` rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from unitp.errors import ModelError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.source import RopeSource, Source
from unitp.graph.weights import shape_of


class LlamaConfig(msgspec.Struct, frozen=True):
    """Sizes and constants. `interleaved`: rotary pairs are (2i, 2i+1), else (i, i + dim/2). `rope_divisors`: per frequency."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    max_context: int
    epsilon: float = 1e-5
    rope_base: float = 10000.0
    rope_divisors: tuple[float, ...] = ()
    interleaved: bool = False
    tied: bool = True
    qkv_bias: bool = False


def decoder_graph(name: str, config: LlamaConfig, weights: Mapping[str, Source]) -> Graph:
    """The graph; `weights` has sources under GGUF's names (`blk.0.attn_q.weight`, stored as [out, in])."""
    return _Decoder(name, config, weights).graph()


class _Decoder:
    def __init__(self, name: str, config: LlamaConfig, weights: Mapping[str, Source]) -> None:
        self.b, self.c, self.weights = Builder(name), config, weights

    def graph(self) -> Graph:
        b, c = self.b, self.c
        ids = b.input("input_ids", "int64", ("batch", "seq"))
        self.positions = b.input("position_ids", "int64", ("batch", "seq"))
        self.starts = b.input("write_indices", "int64", ("batch",))
        self.lengths = b.input("kv_length", "int64", ("batch",))
        wanted = b.input("logits_index", "int64", ("batch", "take"))
        self.rope = [self.rope_table(part) for part in ("cos", "sin")]
        table = self.weight("token_embd.weight", c.vocab, c.width)
        x = b.Gather(table, ids, axis=0)
        for layer in range(c.layers):
            x = b.Add(x, self.attention(layer, self.norm(f"blk.{layer}.attn_norm.weight", x)))
            x = b.Add(x, self.mlp(layer, self.norm(f"blk.{layer}.ffn_norm.weight", x)))
        x = b.GatherND(x, b.Unsqueeze(wanted, axes=(2,)), batch_dims=1)
        head = table if c.tied else self.weight("output.weight", c.vocab, c.width)
        logits = b.MatMul(self.norm("output_norm.weight", x), b.Transpose(head, perm=(1, 0)), name="logits")
        return b.graph(logits, *b.TopK(logits, k="candidates", name=("top_values", "top_ids")))

    def rope_table(self, part: str) -> str:
        c = self.c
        source = RopeSource(part, c.max_context, c.head_dim, c.rope_base, c.rope_divisors)
        return self.b.parameter(f"rope_{part}", (c.max_context, c.head_dim // 2), source)

    def weight(self, name: str, *shape: int) -> str:
        if name not in self.weights:
            raise ModelError(f'model {self.b.name} has no tensor "{name}"')
        source = self.weights[name]
        if shape_of(source) != shape:
            raise ModelError(f'tensor "{name}" of {self.b.name} has shape {shape_of(source)}, its config wants {shape}')
        return self.b.parameter(name, shape, source)

    def norm(self, name: str, x: str) -> str:
        return str(self.b.RMSNormalization(x, self.weight(name, self.c.width), epsilon=self.c.epsilon))

    def linear(self, name: str, x: str, n: int, k: int, bias: bool = False) -> str:
        y = self.b.MatMul(x, self.b.Transpose(self.weight(f"{name}.weight", n, k), perm=(1, 0)))
        return str(self.b.Add(y, self.weight(f"{name}.bias", n)) if bias else y)

    def heads(self, name: str, x: str, count: int) -> str:
        """A projection as batch, heads, positions, head size."""
        c = self.c
        y = self.linear(name, x, count * c.head_dim, c.width, c.qkv_bias)
        return str(self.b.Transpose(self.b.Reshape(y, shape=("batch", "seq", count, c.head_dim)), perm=(0, 2, 1, 3)))

    def rotated(self, x: str) -> str:
        return str(self.b.RotaryEmbedding(x, *self.rope, self.positions, interleaved=int(self.c.interleaved)))

    def cached(self, kind: str, layer: int, rows: str) -> str:
        b, c = self.b, self.c
        past = b.state(f"past_{kind}_{layer}", "float32", ("batch", c.kv_heads, "cache", c.head_dim))
        present = b.TensorScatter(past, rows, self.starts, axis=2, name=f"present_{kind}_{layer}")
        b.keep(past, present)
        return str(b.Slice(present, axes=(2,), starts=(0,), ends=("live",)))

    def attention(self, layer: int, x: str) -> str:
        b, c, at = self.b, self.c, f"blk.{layer}.attn"
        q = self.rotated(self.heads(f"{at}_q", x, c.heads))
        k = self.cached("key", layer, self.rotated(self.heads(f"{at}_k", x, c.kv_heads)))
        v = self.cached("value", layer, self.heads(f"{at}_v", x, c.kv_heads))
        y = b.Transpose(b.Attention(q, k, v, "", "", "", self.lengths, is_causal=1), perm=(0, 2, 1, 3))
        width = c.heads * c.head_dim
        return self.linear(f"{at}_output", b.Reshape(y, shape=("batch", "seq", width)), c.width, width)

    def mlp(self, layer: int, x: str) -> str:
        b, c, at = self.b, self.c, f"blk.{layer}.ffn"
        gate = b.Swish(self.linear(f"{at}_gate", x, c.hidden, c.width))
        up = self.linear(f"{at}_up", x, c.hidden, c.width)
        return self.linear(f"{at}_down", b.Mul(gate, up), c.width, c.hidden)
