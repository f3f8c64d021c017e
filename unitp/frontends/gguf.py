"""Models in GGUF files: Llama, Mistral (as llama) and Qwen2 decoders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unitp.errors import ModelError
from unitp.frontends.fields import MOST_HEAD, MOST_UNKNOWN, Fields
from unitp.frontends.gguf_file import GgufFile, read_gguf
from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.frontends.model import Decoder, Model
from unitp.frontends.sentencepiece import DEFAULTS
from unitp.frontends.tokenizer import gguf_tokenizer
from unitp.graph.weights import read
from unitp.texts import as_unicode, cut, shortened

ROPE_FACTORS = "rope_freqs.weight"

ARCHITECTURES = {"llama": True, "qwen2": False}
"""Known architectures, and whether their rotary pairs are interleaved (Llama files have Q and K permuted so)."""

USED = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "rope.freq_base", "attention.layer_norm_rms_epsilon", "vocab_size", "rope.dimension_count",
    "attention.key_length", "attention.value_length", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "attention.sliding_window",
}  # fmt: skip
USUAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "tensor_data_layout": ("Meta AI original pth",),
}
"""Keys that are refused unless they have the value that means "as usual"."""


def load_gguf(path: str | Path, name: str = "") -> Model:
    """Return the model in a GGUF file. Raises ModelError if it is corrupt or needs mathematics that unitp does not implement."""
    file = read_gguf(path)
    config = llama_config(file)
    label = name or as_unicode(Path(path).stem)
    weights = {n: source for n, source in file.tensors.items() if n != ROPE_FACTORS}
    graph = decoder_graph(label, config, weights, where=path)
    given = Fields(file.metadata, file.path)
    tokens = given.texts("tokenizer.ggml.tokens")
    if len(tokens) > config.vocab:
        raise ModelError(
            f"{path} is corrupt: its tokenizer has {len(tokens)} tokens, its embedding {config.vocab} rows"
        )
    tokenizer = gguf_tokenizer(file.metadata, file.path) if tokens else None
    usual = DEFAULTS if given.get("tokenizer.ggml.model") == "llama" else {}

    def ids(key: str) -> tuple[int, ...]:
        # files write -1 for "none"; an id beyond the vocabulary never occurs
        found = given.ids(f"tokenizer.ggml.{key}_token_id") or usual.get(key, ())
        return tuple(i for i in found if 0 <= i < config.vocab)

    def token(key: str) -> str:
        return next((tokens[i] for i in ids(key) if i < len(tokens)), "")

    decoder = Decoder(
        max_context=config.max_context,
        vocab=config.vocab,
        stop_ids=tuple(dict.fromkeys((*ids("eos"), *ids("eot")))),
        tokenizer=tokenizer,
        chat_template=given.text("tokenizer.chat_template"),
        bos_token=token("bos"),
        eos_token=token("eos"),
    )
    return Model(label, graph, decoder)


def llama_config(file: GgufFile) -> LlamaConfig:
    """Return the sizes and constants of a Llama-type decoder. Raises ModelError for missing, impossible or unsupported keys."""
    meta, path = file.metadata, file.path
    architecture = meta.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ModelError(f'{path} has architecture "{cut(str(architecture))}"; known: {", ".join(ARCHITECTURES)}')
    own = {k.removeprefix(f"{architecture}."): v for k, v in meta.items() if k.startswith(f"{architecture}.")}
    problems = [
        f"{architecture}.{cut(k)}={shortened(own[k])}"
        for k in sorted(set(own) - USED)
        if own[k] not in USUAL.get(k, ())
    ]
    problems += [
        f"{key}={shortened(meta[key])}"
        for key, usual in (("general.type", "model"), ("split.count", 1))
        if meta.get(key, usual) not in (usual, 0)
    ]
    if problems:
        more = f" and {len(problems) - MOST_UNKNOWN} more" if len(problems) > MOST_UNKNOWN else ""
        raise ModelError(f"{path}: unitp does not implement {'; '.join(problems[:MOST_UNKNOWN])}{more}")
    given = Fields(own, path, f"{architecture}.")
    heads, width = given.whole("attention.head_count"), given.whole("embedding_length")
    head_dim = given.whole("attention.key_length", max(1, width // heads), most=MOST_HEAD)
    for key in ("rope.dimension_count", "attention.value_length"):
        if given.whole(key, head_dim) != head_dim:
            raise given.wrong(key, f"the size of a head, {head_dim}")
    context, tensors = given.whole("context_length"), file.tensors
    # within its window, sliding attention is plain attention; 0: no window
    window = given.whole("attention.sliding_window") if own.get("attention.sliding_window") else context
    embedding = tensors.get("token_embd.weight")
    if embedding is None or not embedding.shape:
        raise ModelError(f'{path} has no tensor "token_embd.weight"')
    return LlamaConfig(
        layers=given.whole("block_count"),
        width=width,
        heads=heads,
        kv_heads=given.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        hidden=given.whole("feed_forward_length"),
        vocab=given.whole("vocab_size", max(1, embedding.shape[0])),
        max_context=min(context, window),
        epsilon=given.real("attention.layer_norm_rms_epsilon"),
        rope_base=given.real("rope.freq_base", 10000.0, least=1.0),
        rope_divisors=_divisors(file, given, head_dim),
        interleaved=ARCHITECTURES[architecture],
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
    )


def _divisors(file: GgufFile, given: Fields, head_dim: int) -> tuple[float, ...]:
    """Return the divisors of the rotary frequencies: llama3's factors are a tensor, linear scaling is one number."""
    kind = given.text("rope.scaling.type") or "none"
    if kind not in ("none", "linear"):
        raise ModelError(f'{file.path} has RoPE scaling "{kind}", which unitp does not implement')
    factor = given.real("rope.scaling.factor") if kind == "linear" else 1.0
    pairs = head_dim // 2
    if (source := file.tensors.get(ROPE_FACTORS)) is not None:
        if source.shape != (pairs,):
            raise ModelError(
                f'{file.path}: tensor "{ROPE_FACTORS}" has shape {list(source.shape)} but must have [{pairs}]'
            )
        factors = tuple(float(f) * factor for f in read(source, [(0, pairs)]))
        if not all(0.0 < f < math.inf for f in factors):
            raise ModelError(f'{file.path} is corrupt: "{ROPE_FACTORS}" has factors that are not numbers above 0')
        return factors
    return (factor,) * pairs if factor != 1.0 else ()
