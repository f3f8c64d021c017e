"""Small language models for tests, and where tests get every one of them: sizes, graphs, weights, and the files that front ends read.

A test names the sizes that it is about and leaves the rest to a config below: `tiny(max_context=2048)`. Weights come from seeds. Folders
are written by `safetensors` and read by `transformers` too; GGUF files are written by the `gguf` package and read by llama.cpp too, so
that reader and writer are not the same hand's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.cost import Machine
from unitp.frontends.builder import Builder
from unitp.frontends.huggingface import ARCHITECTURES
from unitp.frontends.huggingface_weights import spelled
from unitp.frontends.llama import LlamaConfig, decoder_graph, weight_shapes
from unitp.frontends.model import Decoder, Model
from unitp.graph.graph import Graph
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
"""SmolLM2's proportions where they matter: 9 query heads over 3 KV heads, a tied embedding, an odd vocabulary."""

SMALL = LlamaConfig(layers=1, width=32, heads=4, kv_heads=2, head_dim=8, hidden=48, vocab=262, max_context=64)
"""What files are written of: as little as has a layer, and a token for every byte."""

EVEN = LlamaConfig(
    layers=2, width=64, heads=8, kv_heads=4, head_dim=8, hidden=96, vocab=130, max_context=64, tied=False
)
"""Two and four ranks split its heads and its hidden dim into equal parts."""

WIDE = LlamaConfig(layers=30, width=256, heads=16, kv_heads=4, head_dim=16, hidden=512, vocab=1024, max_context=512)
"""As many layers as SmolLM2 has, for what grows with them."""

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


def arrays(sources: Mapping[str, Any]) -> dict[str, Array]:
    """Whole weights in float32."""
    return {name: read(source, [(0, n) for n in shape_of(source)]) for name, source in sources.items()}


def tiny(config: LlamaConfig = TINY, name: str = "tiny", **sizes: Any) -> Model:
    """A language model without a tokenizer: give it token ids. `sizes` are fields of the config that have other values here."""
    config = msgspec.structs.replace(config, **sizes)
    graph = decoder_graph(name, config, random_weights(config))
    return Model(name, graph, Decoder(config.max_context, config.vocab, ()))


def mlp(width: int = 8, hidden: int = 16, batch: int | str = "batch") -> Graph:
    """Relu(x up) down, with `x` of [batch, width] and two random matrices: a graph that is no decoder."""
    b = Builder("mlp")
    x = b.input("x", "float32", (batch, width))
    between = b.Relu(b.MatMul(x, b.random("up", (width, hidden), seed=1)))
    return b.graph(b.MatMul(between, b.random("down", (hidden, width), seed=2)))


def write_huggingface(
    folder: Path,
    config: LlamaConfig = TINY,
    weights: Mapping[str, Array] | None = None,
    *,
    architecture: str = "LlamaForCausalLM",
    **more: Any,
) -> Path:
    """A Hugging Face directory with these weights (by GGUF's names), or with random ones; `more` goes into its config.

    Interleaved rotary pairs, as GGUF has them for Llama, become the two halves that Hugging Face wants.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads} if config.interleaved else {}
    tensors: dict[str, Array] = {}
    for name, weight in (arrays(random_weights(config)) if weights is None else weights).items():
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


SPECIAL = ("<|end|>", "<|user|>")
PIECES = (
    "__ _t in _a he re an ____ _the er is na at on _w _an nd _in ana or _b ban ing _is _and ___ of nan _the_ banana _wor ld "
    "_world Pa ris _Pa _Paris 日本 _ e t a o n i s r h l d u b c m w f g p P . , ' é 日 本"
).replace("_", "\u2581")
"""What characters join to, best first, and the characters, of a tokenizer of the kind "llama"."""


def write_tensors(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Array | tuple[Array, int]]) -> Path:
    """A GGUF file with this metadata; a tensor is an array, or rows of quantised bytes with the GGML type's number."""
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, str(metadata["general.architecture"]))
    for key, value in metadata.items():
        if key == "general.alignment":
            writer.add_custom_alignment(value)
        elif key != "general.architecture":
            # sizes and ids are unsigned in the files that llama.cpp reads
            unsigned = type(value) is int and 0 <= value < 1 << 32
            writer.add_key_value(key, value, GGUFValueType.UINT32 if unsigned else GGUFValueType.get_type(value))
    for name, tensor in tensors.items():
        data, kind = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, data, raw_dtype=None if kind is None else GGMLQuantizationType(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata(config: LlamaConfig = SMALL, architecture: str = "llama") -> dict[str, Any]:
    """The metadata of a GGUF file of a decoder, with a tokenizer that has a token for every byte, three merges and two special tokens."""
    sizes = {
        "block_count": config.layers,
        "context_length": config.max_context,
        "embedding_length": config.width,
        "feed_forward_length": config.hidden,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.layer_norm_rms_epsilon": config.epsilon,
        "rope.freq_base": config.rope_base,
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab,
    }
    letters = _letters()
    tokens = [*SPECIAL, *letters, "th", "the", "\u0120the"]
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": ["t h", "th e", "\u0120 the"],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}",
    }


def sentencepiece(space: bool | None = None) -> dict[str, Any]:
    """What a GGUF file of the kind "llama" has for a tokenizer: 3 special tokens, 256 bytes, 2 tokens shown as they are, pieces."""
    special, shown, pieces = ["<unk>", "<s>", "</s>"], ["[INST]", "[/INST]"], PIECES.split()
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *shown, *pieces],
        "tokenizer.ggml.scores": [0.0] * 261 + [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [4] * 2 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": None,
        "tokenizer.ggml.add_space_prefix": space,
        "tokenizer.ggml.merges": None,
    }


def write_gguf(
    path: Path,
    config: LlamaConfig = SMALL,
    weights: Mapping[str, Array] | None = None,
    *,
    architecture: str = "llama",
    **more: Any,
) -> Path:
    """A GGUF file with these weights, or with random ones; `more` changes its metadata (dots written as `__`; None leaves a key out)."""
    given = metadata(config, architecture) | {key.replace("__", "."): value for key, value in more.items()}
    tensors = arrays(random_weights(config)) if weights is None else weights
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return write_tensors(path, {key: value for key, value in given.items() if value is not None}, contiguous)


def write_sentencepiece(path: Path, *, space: bool | None = None, **more: Any) -> Path:
    """A GGUF file of a decoder with a tokenizer of the kind "llama"; `more` is as in `write_gguf`."""
    own = sentencepiece(space)
    config = msgspec.structs.replace(SMALL, vocab=len(own["tokenizer.ggml.tokens"]))
    return write_gguf(path, config, **{key.replace(".", "__"): value for key, value in own.items()} | more)


def _letters() -> list[str]:
    """The letters that stand for the 256 bytes (GPT-2's): printable ones for themselves, the others from U+0100 on."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in own else next(spare)) for byte in range(256)]
