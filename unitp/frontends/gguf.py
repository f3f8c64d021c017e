"""GGUF files: metadata and where each tensor lies, without reading one. Llama, Mistral (as llama) and Qwen2 decoders.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. The reader is our own because
the `gguf` package's takes 1.7 s for a vocabulary of 49152; dequantisation (in the ranks) is the package's.
"""

from __future__ import annotations

import math
import os
import struct
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from unitp.errors import ModelError
from unitp.files import opened, require_whole
from unitp.frontends.fields import MOST_HEAD, Fields
from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.frontends.model import Decoder, Model
from unitp.frontends.sentencepiece import DEFAULTS
from unitp.frontends.tokenizer import gguf_tokenizer
from unitp.graph.source import GgufSource
from unitp.graph.weights import read
from unitp.texts import as_unicode

MAGIC = b"GGUF"
ROPE_FACTORS = "rope_freqs.weight"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_DIMS = 4
MOST_BYTES = 64 << 20
"""No string or array of a header is longer; a corrupt count must not fill the memory."""


class GgufFile(msgspec.Struct, frozen=True):
    path: str
    metadata: dict[str, Any]
    tensors: dict[str, GgufSource]


class _Cursor:
    """Reads numbers and strings from a file of `size` bytes; running off its end is a ModelError."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file, self.at = path, file, 0
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def take(self, size: int) -> bytes:
        if self.at + size > self.size:
            raise ModelError(
                f"{self.path} is truncated or corrupt: {size} bytes wanted at byte {self.at}, it ends at {self.size}"
            )
        if size > MOST_BYTES:
            raise self.corrupt(f"an entry of {size} bytes")
        self.at += size
        return self.file.read(size)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.corrupt("a string is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise self.corrupt(f"unknown metadata type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            raw = self.take(struct.calcsize(SCALARS[inner]) * count)
            return list(struct.unpack(f"<{count}{SCALARS[inner]}", raw))
        if inner != STRING:
            raise self.corrupt(f"an array of metadata type {inner}")
        return [self.string() for _ in range(count)]

    def corrupt(self, why: str) -> ModelError:
        return ModelError(f"{self.path} is corrupt: {why}, before byte {self.at}")


def read_gguf(path: str | Path) -> GgufFile:
    """Metadata and tensor sources. Raises ModelError for a missing, truncated or corrupt file."""
    with opened(path, ModelError) as file:
        require_whole(file, path, ModelError)
        return _read(_Cursor(str(path), file))


def _read(cursor: _Cursor) -> GgufFile:
    path = cursor.path
    if cursor.size < len(MAGIC) or (magic := cursor.take(len(MAGIC))) != MAGIC:
        seen = f"it begins with {magic!r}" if cursor.size >= len(MAGIC) else f"it has {cursor.size} bytes"
        raise ModelError(f"{path} is no GGUF file: {seen}")
    if (version := cursor.number("I")) not in (2, 3):
        raise ModelError(f"{path} has GGUF version {version}, known are 2 and 3 (little-endian)")
    count, entries = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.string()
        if key in metadata:
            raise cursor.corrupt(f'key "{key}" is there twice')
        metadata[key] = cursor.value(cursor.number("I"))
    found = [_tensor_info(cursor) for _ in range(count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"{path} is corrupt: general.alignment is {alignment!r}, wanted is a power of two")
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, GgufSource] = {}
    end, last = base, "the header"
    for name, shape, kind, at in sorted(found, key=lambda info: info[3]):
        if name in tensors:
            raise ModelError(f'{path} is corrupt: tensor "{name}" is there twice')
        if at % alignment:
            raise ModelError(f'{path} is corrupt: tensor "{name}" begins at {at}, no multiple of {alignment}')
        tensors[name] = GgufSource(path, base + at, kind, shape)
        if base + at != -(-end // alignment) * alignment:
            how = "overlaps" if base + at < end else "leaves bytes that are nobody's after"
            raise ModelError(f'{path} is corrupt: tensor "{name}" {how} {last}')
        end, last = base + at + _stored_bytes(path, name, tensors[name]), f'tensor "{name}"'
        if end > cursor.size:
            raise ModelError(f'{path} is truncated: tensor "{name}" ends at byte {end}, the file at {cursor.size}')
    if cursor.size > -(-end // alignment) * alignment:
        raise ModelError(f"{path} is corrupt: its tensors end at byte {end}, the file at {cursor.size}")
    return GgufFile(path, metadata, {name: tensors[name] for name, *_ in found})


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dims = cursor.string(), cursor.number("I")
    if dims > MOST_DIMS:
        raise cursor.corrupt(f'tensor "{name}" has {dims} dims')
    shape = tuple(cursor.number("Q") for _ in range(dims))
    return name, shape[::-1], cursor.number("I"), cursor.number("Q")


def _stored_bytes(path: str, name: str, source: GgufSource) -> int:
    if (sizes := _block(source.kind)) is None:
        raise ModelError(f'{path}: tensor "{name}" has type {_kind_name(source.kind)}, which unitp cannot read')
    block, size = sizes
    if source.shape and source.shape[-1] % block:
        raise ModelError(f'{path} is corrupt: rows of "{name}" are no whole number of blocks of {block}')
    return prod(source.shape) // block * size


@lru_cache
def _block(kind: int) -> tuple[int, int] | None:
    """Numbers and bytes of a block of this GGML type; None where the `gguf` package does not know it or cannot dequantise it."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        known = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[known]
        dequantize(np.zeros((1, size), np.uint8), known)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return int(block), int(size)


def _kind_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    return next((known.name for known in GGMLQuantizationType if known == kind), str(kind))


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
    """The model in a GGUF file. Raises ModelError where it is corrupt, or needs mathematics that unitp does not do."""
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
        # files write -1 for "none"; an id beyond the vocabulary never comes up
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
    """Sizes and constants. Raises ModelError for keys that are missing, impossible, or not implemented."""
    meta, path = file.metadata, file.path
    architecture = meta.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ModelError(f'{path} has architecture "{architecture}"; known: {", ".join(ARCHITECTURES)}')
    own = {k.removeprefix(f"{architecture}."): v for k, v in meta.items() if k.startswith(f"{architecture}.")}
    problems = [f"{architecture}.{k}={own[k]!r}" for k in sorted(set(own) - USED) if own[k] not in USUAL.get(k, ())]
    problems += [
        f"{key}={meta[key]!r}"
        for key, usual in (("general.type", "model"), ("split.count", 1))
        if meta.get(key, usual) not in (usual, 0)
    ]
    if problems:
        raise ModelError(f"{path}: unitp does not implement {'; '.join(problems)}")
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
    """What rotary frequencies are divided by: llama3's factors are a tensor, linear scaling is one number."""
    kind = given.text("rope.scaling.type") or "none"
    if kind not in ("none", "linear"):
        raise ModelError(f'{file.path} has RoPE scaling "{kind}", which unitp does not implement')
    factor = given.real("rope.scaling.factor") if kind == "linear" else 1.0
    pairs = head_dim // 2
    if (source := file.tensors.get(ROPE_FACTORS)) is not None:
        if source.shape != (pairs,):
            raise ModelError(
                f'{file.path}: tensor "{ROPE_FACTORS}" has shape {list(source.shape)}, wanted is [{pairs}]'
            )
        factors = tuple(float(f) * factor for f in read(source, [(0, pairs)]))
        if not all(0.0 < f < math.inf for f in factors):
            raise ModelError(f'{file.path} is corrupt: "{ROPE_FACTORS}" has factors that are no numbers above 0')
        return factors
    return (factor,) * pairs if factor != 1.0 else ()
