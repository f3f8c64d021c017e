"""Reads Hugging Face directories of Llama-type decoders: `config.json`, safetensors (one file or sharded), `tokenizer.json`.

A `config.json` alone, or a directory without weights, gives the same graph with parameters that have no data.

Every key of the config is known. Some are used, some are refused unless they have their usual value, and the others do
not affect the mathematics. An unknown key is refused by name, because its effect cannot be known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitp.errors import ModelError
from unitp.files import read_json, read_text
from unitp.frontends.fields import MOST_HEAD, MOST_UNKNOWN, Fields
from unitp.frontends.huggingface_weights import has_weights, read_weights, require_tied, spelled
from unitp.frontends.llama import LlamaConfig, decoder_graph, weight_shapes
from unitp.frontends.model import Decoder, Model
from unitp.frontends.rope import rope_divisors, unknown_rope
from unitp.frontends.tokenizer import JsonTokenizer
from unitp.graph.source import AbsentSource
from unitp.texts import as_unicode, cut, shortened

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
"""Architectures by `model_type`."""

USED = {
    "architectures", "attention_bias", "bos_token_id", "eos_token_id", "head_dim", "hidden_size", "intermediate_size",
    "layer_types", "max_position_embeddings", "mlp_bias", "model_type", "num_attention_heads", "num_experts_per_tok",
    "num_hidden_layers", "num_key_value_heads", "num_local_experts", "rms_norm_eps", "rope_parameters",
    "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings", "use_sliding_window", "vocab_size",
}  # fmt: skip
USUAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "hidden_activation": (None, "silu"),
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
    "use_mrope": (None, False),
    "is_decoder": (None, False, True),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "tie_encoder_decoder": (None, False),
    "pruned_heads": (None, {}, []),
    "quantization_config": (None,),
}
SLIDING = "sliding_attention"
MISTRAL_WINDOW = 4096
"""The window of a Mistral config that lacks the key; null means no window."""

LAYER_TYPES = ("full_attention", SLIDING)
EOS = "eos_token_id"
HARMLESS = {
    "_attn_implementation_autoset", "_name_or_path", "attention_dropout", "bad_words_ids", "begin_suppress_tokens",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range",
    "is_llama_config", "label2id", "length_penalty", "max_length", "max_window_layers", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_router_logits", "output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "router_aux_loss_coef", "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "typical_p", "unsloth_fixed",
    "unsloth_version", "use_bfloat16", "use_cache",
}  # fmt: skip

MOST_LAYERS = 1024
MOST_TEMPLATE = 1 << 20
"""The most bytes of a chat template."""


def load_huggingface(path: str | Path, name: str = "") -> Model:
    """Return the model in a directory. Raises ModelError if files are missing or corrupt, or need what unitp does not implement."""
    folder = Path(path)
    where = folder / "config.json"
    config = read_json(where, ModelError)
    label = name or as_unicode(folder.resolve().name)
    if not has_weights(folder):
        return from_config(config, where=where, name=label, why=f"{folder} has no safetensors", folder=folder)
    _require_known(config, where)
    weights, llama = read_weights(folder), _config(config, where)
    if llama.tied:
        require_tied(weights, where)
    graph = decoder_graph(label, llama, weights, where=folder, spelled=spelled)
    return Model(label, graph, _decoder(config, llama, where, folder))


def load_config(path: str | Path) -> Model:
    """Return the model of a config file, without weights. It is named after its folder, or after a file not called `config.json`."""
    file = Path(path)
    name = as_unicode(file.resolve().parent.name if file.name == "config.json" else file.stem)
    why = f"{file} tells of shapes only"
    return from_config(read_json(file, ModelError), where=file, name=name or "model", why=why)


def from_config(config: Mapping[str, Any], *, where: object, name: str, why: str, folder: Path | None = None) -> Model:
    """Return the model of a config, without weights. `folder` may have a tokenizer.

    why   what a user who tries to run the model is told

    Raises ModelError, which names `where`, for a config that is incomplete or needs what unitp does not implement.
    """
    _require_known(config, where)
    llama = _config(config, where)
    if llama.layers > MOST_LAYERS:  # each would have to have weights in a file
        raise Fields(config, where).wrong("num_hidden_layers", f"at most {MOST_LAYERS} where there are no weights")
    weights = {weight: AbsentSource(shape, why) for weight, shape in weight_shapes(llama)}
    graph = decoder_graph(name, llama, weights, where=where, spelled=spelled)
    return Model(name, graph, _decoder(config, llama, where, folder))


def _decoder(config: Mapping[str, Any], llama: LlamaConfig, where: object, folder: Path | None) -> Decoder:
    """Return what generation needs to know, from the files beside the config, or from the config alone."""
    tokens, ids = Fields(config, where), Fields({}, where)
    settings, template, tokenizer = Fields({}, where), "", None
    if folder is not None:
        settings = Fields(_optional(folder / "tokenizer_config.json"), folder / "tokenizer_config.json")
        ids = Fields(_optional(folder / "generation_config.json"), folder / "generation_config.json")
        template, tokenizer = _template(folder, settings), folder / "tokenizer.json"
    return Decoder(
        max_context=llama.max_context,
        vocab=llama.vocab,
        # an id beyond the vocabulary never occurs
        stop_ids=tuple(i for i in ids.ids(EOS) or tokens.ids(EOS) if 0 <= i < llama.vocab),
        tokenizer=JsonTokenizer(str(tokenizer)) if tokenizer and os.path.lexists(tokenizer) else None,
        chat_template=template,
        bos_token=_token(settings, "bos_token"),
        eos_token=_token(settings, "eos_token"),
    )


def _template(folder: Path, settings: Fields) -> str:
    """Return the chat template, from a file of its own or from the settings; of several, the one with the name "default"."""
    file = folder / "chat_template.jinja"
    if os.path.lexists(file):
        return read_text(file, ModelError, most=MOST_TEMPLATE)
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = next((t.get("template") for t in found if isinstance(t, dict) and t.get("name") == "default"), None)
    if found is not None and not isinstance(found, str):
        raise settings.wrong("chat_template", "a template, or a list of them, each with a name")
    return found or ""


def _token(settings: Fields, key: str) -> str:
    """Return a special token: its text, or a table that has the text as its content; "" if there is none."""
    value = settings.get(key) or ""
    text = value.get("content", "") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise settings.wrong(key, "a token")
    return text


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, ModelError) if os.path.lexists(path) else {}


def _kind(config: Mapping[str, Any]) -> str:
    """Return the `model_type`, or that of the architecture if the config has none."""
    kind, named = config.get("model_type"), config.get("architectures")
    if kind is None and isinstance(named, list):
        kind = next((kind for kind, architecture in ARCHITECTURES.items() if named == [architecture]), None)
    return kind if isinstance(kind, str) else ""


def _require_known(config: Mapping[str, Any], where: object) -> None:
    """Raise ModelError that names everything that unitp does not implement and every unknown key."""
    kind, named, problems = _kind(config), config.get("architectures"), []
    if kind not in ARCHITECTURES:
        problems.append(f"model_type={shortened(config.get('model_type'))} (known: {', '.join(ARCHITECTURES)})")
    if named and (kind not in ARCHITECTURES or named != [ARCHITECTURES[kind]]):
        problems.append(f"architectures={shortened(named)} (known: {', '.join(ARCHITECTURES.values())})")
    for key in sorted(set(config) - USED - HARMLESS):
        if key not in USUAL:
            problems.append(f"unknown key {cut(key)}={shortened(config[key])}")
        elif config[key] not in USUAL[key]:
            problems.append(f"{key}={shortened(config[key])}")
    if kind != "llama":  # the others have no such choice: transformers does not read these keys
        problems += [f"{key}={shortened(config[key])}" for key in ("attention_bias", "mlp_bias") if config.get(key)]
    if kind != "mixtral" and config.get("num_local_experts"):
        problems.append(f"num_local_experts={shortened(config['num_local_experts'])}")
    layers = config.get("layer_types")
    if layers is not None and not (isinstance(layers, list) and all(t in LAYER_TYPES for t in layers)):
        problems.append(f"layer_types={shortened(layers)} (known: {', '.join(LAYER_TYPES)})")
    problems += unknown_rope(config)
    if problems:
        more = f" and {len(problems) - MOST_UNKNOWN} more" if len(problems) > MOST_UNKNOWN else ""
        raise ModelError(f"{where}: unitp does not implement {'; '.join(problems[:MOST_UNKNOWN])}{more}")


def _config(config: Mapping[str, Any], where: object) -> LlamaConfig:
    given, kind = Fields(config, where), _kind(config)
    heads, width = given.whole("num_attention_heads"), given.whole("hidden_size")
    head_dim = given.whole("head_dim", max(1, width // heads), most=MOST_HEAD)
    base, divisors = rope_divisors(config, head_dim, where)
    unsaid = "num_key_value_heads" not in config  # what transformers then takes for Mistral and Qwen2 is not `heads`
    attention_bias = kind == "llama" and given.flag("attention_bias")
    experts = given.whole("num_local_experts", most=MOST_HEAD) if kind == "mixtral" else 0
    chosen = given.whole("num_experts_per_tok") if kind == "mixtral" else 0
    if chosen > experts:
        raise given.wrong("num_experts_per_tok", f"at most num_local_experts, {experts}")
    return LlamaConfig(
        layers=given.whole("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=given.whole("num_key_value_heads", None if unsaid and kind != "llama" else heads),
        head_dim=head_dim,
        hidden=given.whole("intermediate_size"),
        vocab=given.whole("vocab_size"),
        max_context=_context(given, kind),
        epsilon=given.real("rms_norm_eps", 1e-6),
        rope_base=base,
        rope_divisors=divisors,
        interleaved=False,
        tied=given.flag("tie_word_embeddings"),
        qkv_bias=attention_bias or kind == "qwen2",
        output_bias=attention_bias,
        mlp_bias=kind == "llama" and given.flag("mlp_bias"),
        experts=experts,
        chosen=chosen,
    )


def _context(given: Fields, kind: str) -> int:
    """Return the longest context. Sliding attention is plain attention within its window, so a window only shortens the context."""
    context = given.whole("max_position_embeddings")
    named = "sliding_window" in given.values
    window = given.whole("sliding_window", MISTRAL_WINDOW if kind == "mistral" and not named else context)
    slides = kind != "qwen2" or given.flag("use_sliding_window") or SLIDING in (given.get("layer_types") or ())
    return min(context, window) if slides else context
