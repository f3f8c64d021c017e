"""Reads the weights of a Hugging Face directory (safetensors, one file or several), with the names that GGUF gives them.

The experts of a layer, each a matrix in the file, become one tensor. A stored head that equals the embedding is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unitp.errors import ModelError
from unitp.frontends.safetensors import read_safetensors, read_sharded
from unitp.graph.source import FileSource, Source, StackSource
from unitp.graph.weights import NUMBERS, read, shape_of

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
EXPERT = re.compile(r"model\.layers\.([0-9]{1,9})\.block_sparse_moe\.experts\.([0-9]{1,9})\.(w[123])\.weight")
LAYER = re.compile("0|[1-9][0-9]{0,8}")
EXPERT_NAMES = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
"""A file has a matrix for each expert; the graph has one tensor for all."""

LAYER_PARTS, FOREIGN = 4, "?"
FLOATS = tuple(dtype for dtype in NUMBERS if "F" in dtype)
ROWS = 4096
"""The number of rows that are compared at once."""


def has_weights(folder: Path) -> bool:
    """Say whether a directory has safetensors at all. If so, they must be complete."""
    return any(folder.glob("*.safetensors")) or (folder / "model.safetensors.index.json").exists()


def read_weights(folder: Path) -> dict[str, Source]:
    """Return the source of every weight, by GGUF's names, without tables that follow from the config.

    Raises ModelError for files that are missing or corrupt, for dtypes that are not floats, and for incomplete experts.
    """
    index = folder / "model.safetensors.index.json"
    found = read_sharded(index) if index.exists() else read_safetensors(folder / "model.safetensors")
    wrong = [f'"{name}" has dtype {s.dtype}' for name, s in found.items() if s.dtype not in FLOATS]
    if wrong:
        raise ModelError(f"{folder}: weights are {', '.join(FLOATS)}, but tensor {'; '.join(wrong)}")
    kept = {name: source for name, source in found.items() if not name.endswith(".rotary_emb.inv_freq")}
    experts = _experts(kept)
    single = {_renamed(name): source for name, source in kept.items() if not EXPERT.fullmatch(name)}
    return single | experts


def _experts(found: Mapping[str, FileSource]) -> dict[str, Source]:
    """Return the weights with the experts of each layer stacked to one tensor. Raises ModelError if one is missing or has another shape."""
    groups: dict[tuple[str, str], dict[int, FileSource]] = {}
    for name, source in found.items():
        if match := EXPERT.fullmatch(name):
            groups.setdefault((match[1], match[3]), {})[int(match[2])] = source
    stacks: dict[str, Source] = {}
    for (layer, part), experts in groups.items():
        sources = tuple(experts[number] for number in sorted(experts))
        at = f"model.layers.{layer}.block_sparse_moe.experts.*.{part}.weight"
        if sorted(experts) != list(range(len(experts))):
            raise ModelError(
                f"{sources[0].path} lacks experts: {at} is there for {', '.join(map(str, sorted(experts)))}"
            )
        if len({source.shape for source in sources}) > 1:
            raise ModelError(f"{sources[0].path}: {at} does not have the same shape for all experts")
        stacks[f"blk.{layer}.{EXPERT_NAMES[part]}.weight"] = StackSource(sources)
    return stacks


def require_tied(weights: dict[str, Source], where: Path) -> None:
    """Drop a stored head that equals the embedding. Raises ModelError if it differs."""
    head, table = weights.pop("output.weight", None), weights.get("token_embd.weight")
    if head is None or table is None:
        return
    shape = shape_of(head)
    same = (
        shape == shape_of(table)
        and len(shape) > 1
        and all(
            np.array_equal(read(head, rows), read(table, rows))
            for rows in ([(row, min(row + ROWS, shape[0])), (0, shape[1])] for row in range(0, shape[0], ROWS))
        )
    )
    if not same:
        raise ModelError(f"{where}: tie_word_embeddings=True, but lm_head.weight is not model.embed_tokens.weight")


def _renamed(name: str) -> str:
    """GGUF's name for a Hugging Face tensor. A name without one stays as it is, marked as foreign."""
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    if name.startswith("model.layers.") and len(parts) > LAYER_PARTS:
        inner, kind = ".".join(parts[3:-1]), parts[-1]
        if inner in LAYER_NAMES and LAYER.fullmatch(parts[2]):
            return f"blk.{parts[2]}.{LAYER_NAMES[inner]}.{kind}"
    return f"{FOREIGN}{name}"


def spelled(name: str) -> str:
    """Return the name in a Hugging Face file for a name of GGUF's."""
    if name.startswith(FOREIGN):
        return name.removeprefix(FOREIGN)
    back = {gguf: own for own, gguf in NAMES.items()}
    if name in back:
        return back[name]
    inner = {gguf: own for own, gguf in LAYER_NAMES.items()}
    inner |= {own: f"block_sparse_moe.experts.*.{part}" for part, own in EXPERT_NAMES.items()}
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{inner[part]}.{kind}"
