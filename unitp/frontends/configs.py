"""Models that are known by their config only: their sizes are enough to plan, show and export them, without weights.

Each row is one model; it is read as the `config.json` that it abbreviates. Sources: the public `config.json` files at
https://huggingface.co/meta-llama/Llama-3.1-8B (-70B, -405B), https://huggingface.co/Qwen/Qwen2.5-0.5B (to -72B; the base
models, whose context and epsilon differ from those of the instruct models) and https://huggingface.co/mistralai/Mixtral-8x7B-v0.1.
"""

from __future__ import annotations

from typing import Any

import msgspec

from unitp.frontends.model import Model

LLAMA3: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "eos_token_id": 128001,
}
QWEN2: dict[str, Any] = {"model_type": "qwen2", "rope_theta": 1000000.0, "eos_token_id": 151643}

MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "eos_token_id": 2,
}


class Sizes(msgspec.Struct, frozen=True):
    """What distinguishes a model from its relatives. `more` has the keys that differ from those of `family`."""

    family: dict[str, Any]
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    more: dict[str, Any] = {}

    @property
    def config(self) -> dict[str, Any]:
        """The `config.json` that this row abbreviates."""
        return {
            **self.family,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.hidden,
            **self.more,
        }


def _qwen2(vocab: int, context: int, epsilon: float) -> dict[str, Any]:
    """Return the keys of a Qwen2.5 config that sizes do not say. The small models have 151,936 rows of vocabulary and a tied head."""
    return {
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": epsilon,
        "tie_word_embeddings": vocab == 151936,
    }


CONFIGS = {
    # name                    family  layers  width heads kv  hidden
    "llama-3.1-8b":     Sizes(LLAMA3,     32,  4096,  32,  8, 14336),
    "llama-3.1-70b":    Sizes(LLAMA3,     80,  8192,  64,  8, 28672),
    "llama-3.1-405b":   Sizes(LLAMA3,    126, 16384, 128,  8, 53248),
    "qwen2.5-0.5b":     Sizes(QWEN2,      24,   896,  14,  2,  4864, _qwen2(151936, 32768, 1e-6)),
    "qwen2.5-1.5b":     Sizes(QWEN2,      28,  1536,  12,  2,  8960, _qwen2(151936, 131072, 1e-6)),
    "qwen2.5-3b":       Sizes(QWEN2,      36,  2048,  16,  2, 11008, _qwen2(151936, 32768, 1e-6)),
    "qwen2.5-7b":       Sizes(QWEN2,      28,  3584,  28,  4, 18944, _qwen2(152064, 131072, 1e-6)),
    "qwen2.5-14b":      Sizes(QWEN2,      48,  5120,  40,  8, 13824, _qwen2(152064, 131072, 1e-5)),
    "qwen2.5-32b":      Sizes(QWEN2,      64,  5120,  40,  8, 27648, _qwen2(152064, 131072, 1e-5)),
    "qwen2.5-72b":      Sizes(QWEN2,      80,  8192,  64,  8, 29568, _qwen2(152064, 131072, 1e-5)),
    "mixtral-8x7b":     Sizes(MIXTRAL,    32,  4096,  32,  8, 14336, {"num_local_experts": 8, "num_experts_per_tok": 2}),
}  # fmt: skip


def about(name: str) -> str:
    """Return one line about a model of the table."""
    sizes = CONFIGS[name]
    experts = f", {sizes.more['num_local_experts']} experts" if "num_local_experts" in sizes.more else ""
    return f"{sizes.layers} layers, width {sizes.width}, {sizes.heads} query and {sizes.kv_heads} KV heads{experts}"


def known_config(name: str) -> Model:
    """Return the model of this name in the table: a graph without weights."""
    from unitp.frontends.huggingface import from_config

    return from_config(
        CONFIGS[name].config, where=f"the config of {name}", name=name, why=f"{name} is known by its config only"
    )
