"""Small language models for tests: made from seeds, or written out as Hugging Face directories that `transformers` reads too.

`tiny()` has SmolLM2's proportions where they matter (9 query heads over 3 KV heads, a tied embedding, odd vocabulary) and two layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.cost import Machine
from unitp.frontends.huggingface import ARCHITECTURES
from unitp.frontends.huggingface_weights import spelled
from unitp.frontends.llama import LlamaConfig, decoder_graph, weight_shapes
from unitp.frontends.model import Decoder, Model
from unitp.graph.source import RandomSource
from unitp.graph.weights import read, shape_of

Array = npt.NDArray[Any]

TINY = LlamaConfig(
    layers=2,
    width=72,
    heads=9,
    kv_heads=3,
    head_dim=8,
    hidden=100,
    vocab=257,
    max_context=512,
    interleaved=True,
)

EAGER_TO_SPLIT = Machine(call_s=0.0, link_latency_s=0.0, operator_s=0.0, link_bytes_per_s=1e12)
"""Communication that costs nothing: small models are then split as large ones are."""


def random_weights(config: LlamaConfig) -> dict[str, RandomSource]:
    """Weights that keep activations near one: matrices by their width, norms around one."""
    made = {}
    for seed, (name, shape) in enumerate(weight_shapes(config)):
        matrix = len(shape) >= 2 and name != "token_embd.weight"
        scale = shape[-1] ** -0.5 if matrix else 0.2
        made[name] = RandomSource(seed, shape, scale, 1.0 if "norm" in name else 0.0)
    return made


def tiny(config: LlamaConfig = TINY) -> Model:
    """A language model without a tokenizer: give it token ids."""
    graph = decoder_graph("tiny", config, random_weights(config))
    return Model("tiny", graph, Decoder(config.max_context, config.vocab, ()))


def arrays(sources: Mapping[str, Any]) -> dict[str, Array]:
    """Whole weights in float32."""
    return {name: read(source, [(0, n) for n in shape_of(source)]) for name, source in sources.items()}


def write_huggingface(
    folder: Path,
    config: LlamaConfig,
    weights: Mapping[str, Array],
    *,
    architecture: str = "LlamaForCausalLM",
    **more: Any,
) -> Path:
    """A Hugging Face directory with these weights (by GGUF's names); `more` goes into its config.

    Interleaved rotary pairs, as GGUF has them for Llama, become the two halves that Hugging Face wants.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads} if config.interleaved else {}
    tensors: dict[str, Array] = {}
    for name, weight in weights.items():
        part = name.split(".")[-2]
        if part.endswith("_exps"):  # one matrix for each expert
            tensors |= {spelled(name).replace("*", str(i)): expert for i, expert in enumerate(weight)}
            continue
        tensors[spelled(name)] = halves(weight, heads[part]) if part in heads else weight
    save_file(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    kind = next(kind for kind, name in ARCHITECTURES.items() if name == architecture)
    about = {
        "architectures": [architecture],
        "model_type": kind,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": config.epsilon,
        "rope_theta": config.rope_base,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        **({"num_local_experts": config.experts, "num_experts_per_tok": config.chosen} if config.experts else {}),
        **({"attention_bias": config.output_bias, "mlp_bias": config.mlp_bias} if kind == "llama" else {}),
        **more,
    }
    (folder / "config.json").write_text(json.dumps(about, indent=1))
    return folder


def halves(weight: Array, heads: int) -> Array:
    """Rows of each head from interleaved pairs (2i, 2i+1) to halves (i, i + dim/2)."""
    dim = weight.shape[0] // heads
    return weight.reshape(heads, dim // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
