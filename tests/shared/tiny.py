"""A language model small enough to start often."""

from __future__ import annotations

from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.graph.graph import Graph
from unitp.graph.source import RandomSource


def tiny_decoder(layers: int = 2, context: int = 1024, vocab: int = 97) -> Graph:
    """A decoder with random weights: 9 query heads over 3 KV heads."""
    c = LlamaConfig(
        layers=layers, width=72, heads=9, kv_heads=3, head_dim=8, hidden=64, vocab=vocab, max_context=context
    )
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (c.vocab, c.width), "output_norm.weight": (c.width,)}
    for layer in range(layers):
        at = f"blk.{layer}"
        kv = c.kv_heads * c.head_dim
        shapes |= {f"{at}.attn_norm.weight": (c.width,), f"{at}.ffn_norm.weight": (c.width,)}
        shapes |= {f"{at}.attn_q.weight": (c.width, c.width), f"{at}.attn_output.weight": (c.width, c.width)}
        shapes |= {f"{at}.attn_k.weight": (kv, c.width), f"{at}.attn_v.weight": (kv, c.width)}
        shapes |= {f"{at}.ffn_gate.weight": (c.hidden, c.width), f"{at}.ffn_up.weight": (c.hidden, c.width)}
        shapes |= {f"{at}.ffn_down.weight": (c.width, c.hidden)}
    weights = {
        name: RandomSource(seed, shape, scale=0.3, offset=1.0 if len(shape) == 1 else 0.0)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    return decoder_graph("tiny", c, weights)
