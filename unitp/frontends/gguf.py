"""GGUF files: metadata and where each tensor lies, without reading one. Llama, Mistral (as llama) and Qwen2 decoders.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. The reader is our own because
the `gguf` package's takes 1.7 s for a vocabulary of 49152; dequantisation (in the ranks) is the package's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import ModelError
from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.frontends.model import Decoder, Model
from unitp.frontends.tokenizer import GgufTokenizer
from unitp.graph.source import GgufSource
from unitp.graph.weights import read

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
LIMIT = 1 << 28


class GgufFile(msgspec.Struct, frozen=True):
    path: str
    metadata: dict[str, Any]
    tensors: dict[str, GgufSource]


class _Cursor:
    """Reads numbers and strings from bytes; running off the end is a ModelError."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, size: int) -> bytes:
        if size > LIMIT or self.at + size > len(self.data):
            raise ModelError(f"{self.path} is truncated or no GGUF file: its header ends at byte {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ModelError(f"{self.path} is corrupt: a string at byte {self.at} is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ModelError(f"{self.path} is corrupt: unknown metadata type {kind} at byte {self.at}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            size = struct.calcsize(SCALARS[inner])
            return list(struct.unpack(f"<{count}{SCALARS[inner]}", self.take(size * count)))
        if count > LIMIT:
            raise ModelError(f"{self.path} is corrupt: an array of {count} entries")
        return [self.value(inner) for _ in range(count)]


def read_gguf(path: str | Path) -> GgufFile:
    """Metadata and tensor sources. Raises ModelError for a missing, truncated or corrupt file."""
    path = str(path)
    try:
        size = Path(path).stat().st_size
        with open(path, "rb") as file:
            head = file.read(min(size, 64 << 20))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    cursor = _Cursor(path, head)
    if cursor.take(4) != b"GGUF":
        raise ModelError(f"{path} is no GGUF file")
    if (version := cursor.number("I")) not in (2, 3):
        raise ModelError(f"{path} has GGUF version {version}, known are 2 and 3 (little-endian)")
    tensors, entries = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
    found = [_tensor_info(cursor) for _ in range(tensors)]
    alignment = int(metadata.get("general.alignment", 32))
    base = -(-cursor.at // alignment) * alignment
    sources = {name: GgufSource(path, base + at, kind, shape) for name, shape, kind, at in found}
    for name, source in sources.items():
        if (end := source.offset + _stored_bytes(path, name, source)) > size:
            raise ModelError(f'{path} is truncated: tensor "{name}" ends at byte {end}, the file at {size}')
    return GgufFile(path, metadata, sources)


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dims = cursor.string(), cursor.number("I")
    if dims > 4:
        raise ModelError(f'{cursor.path} is corrupt: tensor "{name}" has {dims} dims')
    shape = tuple(cursor.number("Q") for _ in range(dims))
    return name, shape[::-1], cursor.number("I"), cursor.number("Q")


def _stored_bytes(path: str, name: str, source: GgufSource) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(source.kind)]
    except ValueError:
        raise ModelError(f'{path}: tensor "{name}" has unknown type {source.kind}') from None
    if source.shape and source.shape[-1] % block:
        raise ModelError(f'{path} is corrupt: rows of "{name}" are no whole number of blocks of {block}')
    return prod(source.shape) // int(block) * int(size)


ARCHITECTURES = {"llama": True, "qwen2": False}
"""Known architectures, and whether their rotary pairs are interleaved (Llama files have Q and K permuted so)."""

USED = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "rope.freq_base", "attention.layer_norm_rms_epsilon", "vocab_size", "rope.dimension_count",
    "attention.key_length", "attention.value_length", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "attention.sliding_window",
}  # fmt: skip


def load_gguf(path: str | Path, name: str = "") -> Model:
    """The model in a GGUF file. Raises ModelError where it is corrupt, or needs mathematics that unitp does not do."""
    file = read_gguf(path)
    config = _config(file)
    label = name or Path(path).stem
    graph = decoder_graph(label, config, file.tensors)
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    tokenizer = GgufTokenizer(str(path)) if tokens else None
    stops = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]

    def token(key: str) -> str:
        number = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        return str(tokens[number]) if tokens and isinstance(number, int) and number < len(tokens) else ""

    decoder = Decoder(
        max_context=config.max_context,
        vocab=config.vocab,
        stop_ids=tuple(dict.fromkeys(s for s in stops if s is not None)),
        tokenizer=tokenizer,
        chat_template=str(file.metadata.get("tokenizer.chat_template", "")),
        bos_token=token("bos"),
        eos_token=token("eos"),
    )
    return Model(label, graph, decoder)


def _config(file: GgufFile) -> LlamaConfig:
    meta, path = file.metadata, file.path
    architecture = meta.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(f'{path} has architecture "{architecture}"; known: {", ".join(ARCHITECTURES)}')
    own = {k.removeprefix(f"{architecture}."): v for k, v in meta.items() if k.startswith(f"{architecture}.")}
    if unknown := sorted(set(own) - USED):
        raise ModelError(
            f"{path} uses {', '.join(f'{architecture}.{k}' for k in unknown)}, which unitp does not implement"
        )

    def need(key: str) -> Any:
        if key not in own:
            raise ModelError(f'{path} is corrupt: "{architecture}.{key}" is missing')
        return own[key]

    heads, width = int(need("attention.head_count")), int(need("embedding_length"))
    head_dim = int(own.get("attention.key_length", width // heads))
    if own.get("rope.dimension_count", head_dim) != head_dim or own.get("attention.value_length", head_dim) != head_dim:
        raise ModelError(f"{path} rotates or keeps a part of each head only, which unitp does not implement")
    if "token_embd.weight" not in file.tensors:
        raise ModelError(f'{path} has no tensor "token_embd.weight"')
    context = int(need("context_length"))
    return LlamaConfig(
        layers=int(need("block_count")),
        width=width,
        heads=heads,
        kv_heads=int(own.get("attention.head_count_kv", heads)),
        head_dim=head_dim,
        hidden=int(need("feed_forward_length")),
        vocab=file.tensors["token_embd.weight"].shape[0],
        # within its window, sliding attention is plain attention
        max_context=min(context, int(own.get("attention.sliding_window") or context)),
        epsilon=float(need("attention.layer_norm_rms_epsilon")),
        rope_base=float(own.get("rope.freq_base", 10000.0)),
        rope_divisors=_divisors(file, own, head_dim),
        interleaved=ARCHITECTURES[architecture],
        tied="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
    )


def _divisors(file: GgufFile, own: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """What rotary frequencies are divided by: llama3's factors are a tensor, linear scaling is one number."""
    kind = own.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise ModelError(f'{file.path} has RoPE scaling "{kind}", which unitp does not implement')
    factor = float(own.get("rope.scaling.factor", 1.0)) if kind == "linear" else 1.0
    if "rope_freqs.weight" in file.tensors:
        factors = read(file.tensors["rope_freqs.weight"], [(0, head_dim // 2)])
        return tuple(float(f) * factor for f in factors)
    return (factor,) * (head_dim // 2) if factor != 1.0 else ()
