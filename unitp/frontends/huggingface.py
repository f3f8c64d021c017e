"""Hugging Face directories of Llama-type decoders: `config.json`, safetensors (one file or sharded), `tokenizer.json`.

Every key of the config is known: used, refused unless it has the value that means "as usual", or without a bearing on the
mathematics. An unknown key is refused by name, since what it changes cannot be known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitp.errors import ModelError
from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.frontends.model import Decoder, Model
from unitp.frontends.tokenizer import JsonTokenizer
from unitp.graph.source import FileSource, Source
from unitp.graph.weights import NUMBERS

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")

USED = {
    "architectures", "attention_bias", "bos_token_id", "eos_token_id", "head_dim", "hidden_size", "intermediate_size",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings", "use_sliding_window",
    "vocab_size", "layer_types",
}  # fmt: skip
USUAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "hidden_activation": (None, "silu"),
    "mlp_bias": (False, None),
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logits_scaling": (None, 1.0),
    "logit_scale": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "embedding_multiplier": (None, 1.0),
    "partial_rotary_factor": (None, 1.0),
    "rope_interleaved": (None, False),
    "qk_norm": (None, False),
    "use_qk_norm": (None, False),
    "num_local_experts": (None, 0),
    "is_decoder": (None, False, True),
    "add_cross_attention": (None, False),
    "tie_encoder_decoder": (None, False),
    "pruned_heads": (None, {}, []),
    "quantization_config": (None,),
}
HARMLESS = {
    "_attn_implementation_autoset", "_name_or_path", "attention_dropout", "bad_words_ids", "begin_suppress_tokens",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "is_encoder_decoder",
    "is_llama_config", "label2id", "length_penalty", "max_length", "max_window_layers", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "typical_p", "unsloth_fixed",
    "unsloth_version", "use_bfloat16", "use_cache",
}  # fmt: skip

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
}


def load_huggingface(path: str | Path, name: str = "") -> Model:
    """The model in a directory. Raises ModelError where files are missing or corrupt, or mathematics is not implemented."""
    folder = Path(path)
    config = _json(folder / "config.json")
    label = name or folder.name
    weights = _weights(folder)
    llama = _config(config, folder / "config.json", weights)
    graph = decoder_graph(label, llama, weights)
    settings = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    generation = _json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
    template = folder / "chat_template.jinja"
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    stops = eos if isinstance(eos, list) else [eos]
    decoder = Decoder(
        max_context=llama.max_context,
        vocab=llama.vocab,
        stop_ids=tuple(int(s) for s in stops if s is not None),
        tokenizer=_tokenizer(folder, bool(settings.get("add_bos_token", False))),
        chat_template=template.read_text("utf-8") if template.exists() else str(settings.get("chat_template") or ""),
        bos_token=_token(settings.get("bos_token")),
        eos_token=_token(settings.get("eos_token")),
    )
    return Model(label, graph, decoder)


def _tokenizer(folder: Path, add_bos: bool) -> JsonTokenizer | None:
    file = folder / "tokenizer.json"
    return JsonTokenizer(str(file), add_bos) if file.exists() else None


def _token(value: object) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object")
    return found


def _config(config: Mapping[str, Any], where: Path, weights: Mapping[str, Source]) -> LlamaConfig:
    problems = []
    architectures = config.get("architectures") or ["none"]
    if architectures[0] not in ARCHITECTURES:
        problems.append(f'architecture "{architectures[0]}" (known: {", ".join(ARCHITECTURES)})')
    for key in sorted(set(config) - USED - HARMLESS):
        if key not in USUAL:
            problems.append(f"unknown key {key}={config[key]!r}")
        elif config[key] not in USUAL[key]:
            problems.append(f"{key}={config[key]!r}")
    if problems:
        raise ModelError(f"{where}: unitp does not implement {'; '.join(problems)}")
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        head_dim = int(config.get("head_dim") or width // heads)
        base, divisors = _rope(config, head_dim, where)
        return LlamaConfig(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            hidden=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            max_context=_context(config, architectures[0]),
            epsilon=float(config["rms_norm_eps"]),
            rope_base=base,
            rope_divisors=divisors,
            interleaved=False,
            tied=bool(config.get("tie_word_embeddings", False)) or "output.weight" not in weights,
            qkv_bias="blk.0.attn_q.bias" in weights,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: {type(error).__name__}: {error}", hint="A key is missing or no number.") from None


def _context(config: Mapping[str, Any], architecture: str) -> int:
    """The longest context; within a sliding window attention is plain, so a window only shortens it."""
    context = int(config["max_position_embeddings"])
    window = config.get("sliding_window")
    slides = config.get("use_sliding_window", architecture == "MistralForCausalLM")
    if "sliding_attention" in (config.get("layer_types") or ()):
        slides = True
    return min(context, int(window)) if window and slides else context


def _rope(config: Mapping[str, Any], head_dim: int, where: Path) -> tuple[float, tuple[float, ...]]:
    """Base and divisors of the rotary frequencies: plain, `linear`, or `llama3`."""
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    base = float(scaling.pop("rope_theta", None) or config.get("rope_theta") or 10000.0)
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    if kind == "default":
        return base, ()
    if kind == "linear":
        return base, (float(scaling["factor"]),) * (head_dim // 2)
    if kind != "llama3":
        raise ModelError(f'{where}: unitp does not implement RoPE scaling "{kind}"')
    factor, low, high = (float(scaling[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(scaling["original_max_position_embeddings"])
    return base, tuple(_llama3(base ** (-2.0 * i / head_dim), factor, low, high, context) for i in range(head_dim // 2))


def _llama3(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    """What a frequency is divided by: 1 for short wavelengths, `factor` for long ones, a blend between (Llama 3.1)."""
    wavelength = 2.0 * math.pi / frequency
    if wavelength < context / high:
        return 1.0
    if wavelength > context / low:
        return factor
    smooth = (context / wavelength - low) / (high - low)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _weights(folder: Path) -> dict[str, Source]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted({str(f) for f in _json(index).get("weight_map", {}).values()})
    else:
        files = ["model.safetensors"]
    found: dict[str, Source] = {}
    for file in files:
        for name, source in read_safetensors(folder / file).items():
            found[_renamed(name)] = source
    return found


def _renamed(name: str) -> str:
    """A Hugging Face tensor name in GGUF's words."""
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    if name.startswith("model.layers.") and len(parts) > 4:
        inner, kind = ".".join(parts[3:-1]), parts[-1]
        if inner in LAYER_NAMES:
            return f"blk.{parts[2]}.{LAYER_NAMES[inner]}.{kind}"
    return name


def read_safetensors(path: Path) -> dict[str, FileSource]:
    """Where each tensor of a safetensors file lies. Raises ModelError for a missing, truncated or corrupt file.

    The format: https://huggingface.co/docs/safetensors. The package gives tensors, not offsets, which are what ranks need.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelError(f"{path} is truncated or no safetensors file")
            header = json.loads(file.read(length))
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, stop = (int(o) + 8 + length for o in entry["data_offsets"])
            if entry["dtype"] not in NUMBERS:
                raise ModelError(f'{path}: tensor "{name}" has dtype {entry["dtype"]}; known: {", ".join(NUMBERS)}')
            if stop > size:
                raise ModelError(f'{path} is truncated: tensor "{name}" ends at byte {stop}, the file at {size}')
            found[name] = FileSource(str(path), start, entry["dtype"], tuple(int(n) for n in entry["shape"]))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is corrupt: {type(error).__name__}: {error}") from None
    return found
