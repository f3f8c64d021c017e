"""The graph of a Llama-type decoder: grouped attention with rotary positions and caches, gated MLP, a head with candidates.

If a layer has experts (Mixtral), all of them are computed for every token, and those that the router did not choose get
weight zero. The experts are a dim of the weights and a factor of two contractions, so ranks can split them; each rank then sums
the results of its own experts. This is experts/chosen times as much work as routing, and plans are priced with it.

Inputs of a call with S tokens per sequence after p old ones: `input_ids`, `position_ids` (p, p+1, ...), `write_indices` (p),
`kv_length` (p + S), and `logits_index`, the positions whose logits are computed. Outputs: `logits` of those positions, and
the `candidates` largest of them with their ids. Caches are written in place and read up to `live` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import msgspec

from unitp.errors import ModelError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.source import RangeSource, RopeSource, Source
from unitp.graph.weights import shape_of

MOST_NAMED = 8
"""A message names at most this many tensors that do not fit."""


class LlamaConfig(msgspec.Struct, frozen=True):
    """The sizes and constants of a decoder.

    interleaved     rotary pairs are (2i, 2i+1), else (i, i + dim/2)
    rope_divisors   a divisor for each rotary frequency; empty: all are 1
    experts         the number of experts in a layer (0: one plain MLP), of which `chosen` are used for each token
    qkv_bias, output_bias (of attention), mlp_bias     whether these projections have a bias
    """

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
    output_bias: bool = False
    mlp_bias: bool = False
    experts: int = 0
    chosen: int = 0


def weight_shapes(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every weight, by GGUF's names. Matrices are stored as [out, in]."""
    c, q, kv = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
    mlp = (
        ("ffn_gate", c.hidden, c.width, c.mlp_bias),
        ("ffn_up", c.hidden, c.width, c.mlp_bias),
        ("ffn_down", c.width, c.hidden, c.mlp_bias),
    )
    yield "token_embd.weight", (c.vocab, c.width)
    yield "output_norm.weight", (c.width,)
    if not c.tied:
        yield "output.weight", (c.vocab, c.width)
    for layer in range(c.layers):
        yield f"blk.{layer}.attn_norm.weight", (c.width,)
        yield f"blk.{layer}.ffn_norm.weight", (c.width,)
        for part, out, inner, bias in (
            ("attn_q", q, c.width, c.qkv_bias),
            ("attn_output", c.width, q, c.output_bias),
            ("attn_k", kv, c.width, c.qkv_bias),
            ("attn_v", kv, c.width, c.qkv_bias),
            *(() if c.experts else mlp),
        ):
            yield f"blk.{layer}.{part}.weight", (out, inner)
            if bias:
                yield f"blk.{layer}.{part}.bias", (out,)
        if c.experts:
            yield f"blk.{layer}.ffn_gate_inp.weight", (c.experts, c.width)
            yield f"blk.{layer}.ffn_gate_exps.weight", (c.experts, c.hidden, c.width)
            yield f"blk.{layer}.ffn_up_exps.weight", (c.experts, c.hidden, c.width)
            yield f"blk.{layer}.ffn_down_exps.weight", (c.experts, c.width, c.hidden)


def decoder_graph(
    name: str,
    config: LlamaConfig,
    weights: Mapping[str, Source],
    *,
    where: object = "",
    spelled: Callable[[str], str] = str,
) -> Graph:
    """Return the graph of a decoder. `weights` maps GGUF's names (`blk.0.attn_q.weight`) to sources.

    where     the origin of the weights, for error messages
    spelled   gives the name in the file for one of GGUF's, for error messages

    Raises ModelError for sizes that do not fit together, and for weights that are missing, have another shape, or are unused:
    an unused weight belongs to mathematics that the graph does not have.
    """
    if config.heads % config.kv_heads:
        raise ModelError(
            f"{where or name} has {config.heads} query heads over {config.kv_heads} KV heads, which must divide them"
        )
    if config.head_dim % 2:
        raise ModelError(f"{where or name} has heads of {config.head_dim}; rotary positions need an even size")
    if problems := list(islice(_misfits(config, weights, spelled), MOST_NAMED)):
        raise ModelError(f"the weights in {where or name} are not what its config wants: {'; '.join(problems)}")
    return _Decoder(name, config, weights).graph()


def _misfits(config: LlamaConfig, weights: Mapping[str, Source], spelled: Callable[[str], str]) -> Iterator[str]:
    """Yield a line for each weight that is missing, has another shape, or is unused.

    A corrupt number of layers can be four billion, so the lines are made one by one.
    """
    used = set()
    for name, shape in weight_shapes(config):
        used.add(name)
        if name not in weights:
            yield f'tensor "{spelled(name)}" is missing'
        elif (seen := shape_of(weights[name])) != shape:
            yield f'tensor "{spelled(name)}" has shape {list(seen)} but must have {list(shape)}'
    for name in weights:
        if name not in used:
            yield f'tensor "{spelled(name)}" is used by nothing'


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
        if c.experts:
            self.experts = b.parameter("expert_ids", (c.experts,), RangeSource(c.experts), "int64")
        self.rope = [self.rope_table(part) for part in ("cos", "sin")]
        table = self.weight("token_embd.weight", c.vocab, c.width)
        x = b.Gather(table, ids, axis=0)
        for layer in range(c.layers):
            x = b.Add(x, self.attention(layer, self.norm(f"blk.{layer}.attn_norm.weight", x)))
            block = self.mixture if c.experts else self.mlp
            x = b.Add(x, block(layer, self.norm(f"blk.{layer}.ffn_norm.weight", x)))
        x = b.GatherND(x, b.Unsqueeze(wanted, axes=(2,)), batch_dims=1)
        head = table if c.tied else self.weight("output.weight", c.vocab, c.width)
        logits = b.MatMul(self.norm("output_norm.weight", x), b.Transpose(head, perm=(1, 0)), name="logits")
        return b.graph(logits, *b.TopK(logits, k="candidates", name=("top_values", "top_ids")))

    def rope_table(self, part: str) -> str:
        """Return the name of a rotary table. It has as many rows as the caches, however many positions the model was made for."""
        c = self.c
        source = RopeSource(part, c.max_context, c.head_dim, c.rope_base, c.rope_divisors)
        return self.b.parameter(f"rope_{part}", ("cache", c.head_dim // 2), source)

    def weight(self, name: str, *shape: int) -> str:
        return self.b.parameter(name, shape, self.weights[name])

    def norm(self, name: str, x: str) -> str:
        return str(self.b.RMSNormalization(x, self.weight(name, self.c.width), epsilon=self.c.epsilon))

    def linear(self, name: str, x: str, n: int, k: int, bias: bool = False) -> str:
        y = self.b.MatMul(x, self.b.Transpose(self.weight(f"{name}.weight", n, k), perm=(1, 0)))
        return str(self.b.Add(y, self.weight(f"{name}.bias", n)) if bias else y)

    def heads(self, name: str, x: str, count: int) -> str:
        """Return the name of a projection of `x`, in the shape [batch, heads, positions, head size]."""
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
        return self.linear(f"{at}_output", b.Reshape(y, shape=("batch", "seq", width)), c.width, width, c.output_bias)

    def mlp(self, layer: int, x: str) -> str:
        b, c, at = self.b, self.c, f"blk.{layer}.ffn"
        gate = b.Swish(self.linear(f"{at}_gate", x, c.hidden, c.width, c.mlp_bias))
        up = self.linear(f"{at}_up", x, c.hidden, c.width, c.mlp_bias)
        return self.linear(f"{at}_down", b.Mul(gate, up), c.width, c.hidden, c.mlp_bias)

    def mixture(self, layer: int, x: str) -> str:
        """Return the name of the sum over experts e of share(e) * mlp_e(x), where experts that were not chosen have share 0."""
        b, c, at = self.b, self.c, f"blk.{layer}.ffn"
        wide = (c.experts, c.hidden, c.width)
        first = [self.weight(f"{at}_{part}_exps.weight", *wide) for part in ("gate", "up")]
        gate, up = (b.Einsum(x, weight, equation="bsd,efd->bsef") for weight in first)
        last = b.Transpose(self.weight(f"{at}_down_exps.weight", c.experts, c.width, c.hidden), perm=(0, 2, 1))
        shares = b.Unsqueeze(self.shares(layer, x), axes=(3,))
        return str(b.Einsum(b.Mul(b.Mul(b.Swish(gate), up), shares), last, equation="bsef,efd->bsd"))

    def shares(self, layer: int, x: str) -> str:
        """Return the name of the shares, [batch, seq, experts]: the probabilities of chosen experts, scaled to sum to one, and zeros."""
        b, c = self.b, self.c
        router = b.Transpose(self.weight(f"blk.{layer}.ffn_gate_inp.weight", c.experts, c.width), perm=(1, 0))
        best, ids = b.TopK(b.Softmax(b.MatMul(x, router)), k=c.chosen)
        best = b.Div(best, b.ReduceSum(best, axes=(2,), keepdims=1))
        chosen = b.Cast(b.Equal(b.Unsqueeze(ids, axes=(3,)), self.experts), to="float32")
        return str(b.ReduceSum(b.Mul(chosen, b.Unsqueeze(best, axes=(3,))), axes=(2,), keepdims=0))
