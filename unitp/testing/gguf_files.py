"""Small GGUF files for tests: any metadata and tensors, and a whole small decoder with a tokenizer of either known kind.

Written by the `gguf` package, so that reader and writer are not the same hand's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.frontends.llama import LlamaConfig
from unitp.testing.models import arrays, random_weights

Array = npt.NDArray[Any]

SMALL = LlamaConfig(
    layers=1, width=32, heads=4, kv_heads=2, head_dim=8, hidden=32, vocab=262, max_context=64, interleaved=True
)
SPECIAL = ("<|end|>", "<|user|>")
PIECES = (
    "__ _t in _a he re an ____ _the er is na at on _w _an nd _in ana or _b ban ing _is _and ___ of nan _the_ banana _wor ld "
    "_world Pa ris _Pa _Paris 日本 _ e t a o n i s r h l d u b c m w f g p P . , ' é 日 本"
).replace("_", "\u2581")
"""What characters join to, best first, and the characters, of a tokenizer of the kind "llama"."""


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Array | tuple[Array, int]]) -> Path:
    """A file with this metadata; a tensor is an array, or rows of quantised bytes with the GGML type's number."""
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
    """The metadata of a decoder, with a tokenizer that has a token for every byte, three merges and two special tokens."""
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
    """What a file of the kind "llama" has for a tokenizer: 3 special tokens, 256 bytes, 2 tokens shown as they are, pieces."""
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


def write_sentencepiece(path: Path, *, space: bool | None = None, **more: Any) -> Path:
    """A whole decoder with a tokenizer of the kind "llama"; `more` is as in `write_small`."""
    own = sentencepiece(space)
    config = msgspec.structs.replace(SMALL, vocab=len(own["tokenizer.ggml.tokens"]))
    return write_small(path, config, **{key.replace(".", "__"): value for key, value in own.items()} | more)


def write_small(path: Path, config: LlamaConfig = SMALL, architecture: str = "llama", **more: Any) -> Path:
    """A whole decoder with random weights; `more` changes its metadata (dots written as `__`; None leaves a key out)."""
    given = metadata(config, architecture) | {key.replace("__", "."): value for key, value in more.items()}
    weights = {name: np.ascontiguousarray(a) for name, a in arrays(random_weights(config)).items()}
    return write_gguf(path, {key: value for key, value in given.items() if value is not None}, weights)


def _letters() -> list[str]:
    """The letters that stand for the 256 bytes (GPT-2's): printable ones for themselves, the others from U+0100 on."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in own else next(spare)) for byte in range(256)]
