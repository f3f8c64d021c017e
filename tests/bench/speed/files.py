"""The same float32 weights in the files that each of the measured reads: GGUF, and Hugging Face directories.

The package has SmolLM2-135M in Q4_1; all read the numbers that these blocks stand for. The second shape has 8 query and 4 KV
heads, taken from the 9 and 3 that are there: text without sense, but the same for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.frontends.gguf import llama_config
from unitp.frontends.gguf_file import read_gguf
from unitp.frontends.known_models import find
from unitp.frontends.llama import LlamaConfig
from unitp.testing.models import arrays, write_huggingface, write_tensors

MODEL = "smollm2-135m"
Array = npt.NDArray[Any]


class Files:
    """Files in a folder, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._source = folder, read_gguf(find(MODEL))

    @property
    def q4_1(self) -> Path:
        """The GGUF file of the package."""
        return find(MODEL)

    @cached_property
    def gguf(self) -> Path:
        """The same with every tensor in float32."""
        return write_tensors(
            self._folder / "float32.gguf", {**self._source.metadata, "general.file_type": 0}, self._weights
        )

    @cached_property
    def huggingface(self) -> Path:
        """The model as `transformers` reads it."""
        return write_huggingface(self._folder / "smollm2", self._config, self._weights)

    @cached_property
    def even_heads(self) -> Path:
        """The model with 8 query and 4 KV heads, as `transformers` and unitp read it."""
        config, weights = with_even_heads(self._config, self._weights)
        return write_huggingface(self._folder / "even", config, weights)

    @cached_property
    def _config(self) -> LlamaConfig:
        return llama_config(self._source)

    @cached_property
    def _weights(self) -> dict[str, Array]:
        return arrays(self._source.tensors)


def with_even_heads(config: LlamaConfig, weights: Mapping[str, Array]) -> tuple[LlamaConfig, dict[str, Array]]:
    """One query head less, and one KV head more, which is a copy of the first."""
    dim = config.head_dim
    queries, kept = (config.heads - 1) * dim, dict(weights)
    for name, weight in weights.items():
        match name.split(".")[-2]:
            case "attn_q":
                kept[name] = weight[:queries]
            case "attn_k" | "attn_v":
                kept[name] = np.concatenate([weight, weight[:dim]])
            case "attn_output":
                kept[name] = weight[:, :queries]
    return msgspec.structs.replace(config, heads=config.heads - 1, kv_heads=config.kv_heads + 1), kept
