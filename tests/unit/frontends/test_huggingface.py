"""Hugging Face directories: what a config says is done or refused by name, never overlooked; weights are all used, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitp.errors import ModelError
from unitp.frontends.huggingface import ARCHITECTURES, HARMLESS, USED, USUAL, load_huggingface
from unitp.frontends.llama import LlamaConfig
from unitp.graph.weights import read, shape_of
from unitp.testing import models
from unitp.testing.models import arrays, random_weights, write_huggingface

SMALL = msgspec.structs.replace(models.SMALL, layers=2, vocab=97, max_context=8192, epsilon=1e-6)
QWEN2 = msgspec.structs.replace(SMALL, qkv_bias=True)
MIXTRAL = msgspec.structs.replace(SMALL, experts=3, chosen=2)
WEIGHTED = {"llama": SMALL, "mistral": SMALL, "mixtral": MIXTRAL, "qwen2": QWEN2}
"""The kinds of weights that an architecture has."""
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "vocab_size": 97,
}  # fmt: skip
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
WEIGHTS = {config: arrays(random_weights(config)) for config in (SMALL, QWEN2)}


def directory(folder: Path, config: LlamaConfig = SMALL, **more: Any) -> Path:
    """A directory with random weights; `more` goes into its config, and so does `architecture`."""
    weights = WEIGHTS.get(config) or arrays(random_weights(config))
    return write_huggingface(folder / "model", config, weights, **more)


def written(folder: Path, about: dict[str, Any], config: LlamaConfig = SMALL) -> Path:
    """A directory whose config is `about`."""
    path = directory(folder, config)
    (path / "config.json").write_text(json.dumps(about))
    return path


def refused(path: Path, *words: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_huggingface(path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message
    return message


def rope(path: Path) -> tuple[float, tuple[float, ...]]:
    source = load_huggingface(path).graph.parameter("rope_cos").source
    return source.base, source.divisors  # type: ignore[union-attr]


def context(path: Path) -> int:
    decoder = load_huggingface(path).decoder
    assert decoder is not None
    return decoder.max_context


# configs as they are found


def transformers_config(kind: str, **more: Any) -> Any:
    import transformers

    name = {"llama": "LlamaConfig", "mistral": "MistralConfig", "mixtral": "MixtralConfig", "qwen2": "Qwen2Config"}[
        kind
    ]
    experts = {"num_local_experts": 3, "num_experts_per_tok": 2} if kind == "mixtral" else {}
    return getattr(transformers, name)(**SIZES, **experts, **more)


@pytest.mark.parametrize("kind", [*ARCHITECTURES])
@pytest.mark.parametrize("architectures", [None, "own"])
def test_a_plain_config_of_transformers_loads(tmp_path: Path, kind: str, architectures: str | None) -> None:
    made = transformers_config(kind, tie_word_embeddings=True)
    made.architectures = architectures and [ARCHITECTURES[kind]]
    path = directory(tmp_path, WEIGHTED[kind])
    made.save_pretrained(path)
    assert load_huggingface(path).name == "model"
    (path / "config.json").write_text(json.dumps(made.to_dict(), default=str))
    assert context(path) == min(made.max_position_embeddings, getattr(made, "sliding_window", None) or 10**9)


OLD = {
    "SmolLM2": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.041666666666666664, "is_llama_config": True,
        "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "pad_token_id": 2, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers.js_config": {"dtype": "q4"},
        "transformers_version": "4.42.3", "use_cache": True,
    },
    "Llama 3.2": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": [2, 3, 4], "head_dim": 8, "hidden_act": "silu", "initializer_range": 0.02,
        "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama", "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {**LLAMA3, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": True,
    },
    "Mistral 7B v0.1": {
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "initializer_range": 0.02, "max_position_embeddings": 32768, "model_type": "mistral", "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0", "use_cache": True,
    },
    "Qwen2.5": {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 32768, "max_window_layers": 21,
        "model_type": "qwen2", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": True,
        "use_sliding_window": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name,longest", [*zip(OLD, [8192, 131072, 4096, 32768], strict=True)])
def test_configs_of_the_hub_load(tmp_path: Path, name: str, longest: int) -> None:
    about = {**OLD[name], **SIZES}
    path = written(tmp_path, about, QWEN2 if name == "Qwen2.5" else SMALL)
    assert context(path) == longest
    assert rope(path)[0] == about["rope_theta"]


# what is refused


@pytest.mark.parametrize("key", [*USUAL])
def test_an_unusual_value_is_refused_by_name(tmp_path: Path, key: str) -> None:
    about: dict[str, Any] = {key: 7}
    refused(directory(tmp_path, **about), f"{key}=7")


@pytest.mark.parametrize("key,values", [*USUAL.items()])
def test_a_usual_value_is_not(tmp_path: Path, key: str, values: tuple[Any, ...]) -> None:
    path = directory(tmp_path)
    about = json.loads((path / "config.json").read_text())
    for value in values:
        (path / "config.json").write_text(json.dumps({**about, key: value}))
        load_huggingface(path)


def test_no_key_is_known_in_two_ways() -> None:
    assert not USED & HARMLESS
    assert not (USED | HARMLESS) & set(USUAL)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0}
    path = directory(tmp_path, attn_logit_softcapping=50.0, hidden_act="gelu", rope_scaling=scaling, sparse_mixing=[1])
    refused(
        path, "attn_logit_softcapping=50.0", "hidden_act='gelu'", 'RoPE scaling "yarn"', "unknown key sparse_mixing=[1]"
    )


@pytest.mark.parametrize(
    "more,words",
    [
        ({"model_type": "gemma"}, ["model_type='gemma'", "llama, mistral, mixtral, qwen2"]),
        ({"model_type": None, "architectures": None}, ["model_type=None"]),
        ({"model_type": ["llama"]}, ["model_type=['llama']"]),
        ({"architectures": ["LlamaModel"]}, ["architectures=['LlamaModel']"]),
        ({"architectures": ["MistralForCausalLM"]}, ["architectures=['MistralForCausalLM']"]),
        ({"architectures": "LlamaForCausalLM"}, ["architectures='LlamaForCausalLM'"]),
        ({"auto_map": {"AutoModel": "own.Model"}}, ["unknown key auto_map"]),
        ({"layer_types": ["full_attention", "linear_attention"]}, ["layer_types"]),
        ({"layer_types": 3}, ["layer_types=3"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ['"dynamic"', "llama3"]),
        ({"rope_scaling": [1]}, ["rope_scaling=[1]"]),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, ["full_attention"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 5.0}}, ["beside"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mscale": 2}}, ["mscale=2"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["RoPE's factor is missing"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, ["RoPE's factor is '2'"]),
        ({"rope_scaling": {**LLAMA3, "rope_type": "llama3", "high_freq_factor": 1.0}}, ["low_freq_factor is 1.0"]),
        ({"rope_theta": 0}, ["rope_theta is 0"]),
        ({"rope_theta": 1e-300}, ["rope_theta is 1e-300"]),
        ({"rms_norm_eps": -1.0}, ["rms_norm_eps is -1.0"]),
        ({"rms_norm_eps": 10**400}, ["a whole number has more than 40 digits"]),
        ({"head_dim": 2**32}, ["head_dim is 4294967296 but must be a whole number from 1 to 65536"]),
        ({"vocab_size": 2**64}, ["vocab_size is 18446744073709551616 but must be a whole number from 1 to"]),
        ({f"key{i}": 1 for i in range(40)}, ["unknown key key0=1", "and 24 more"]),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 1e-320,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                }
            },
            ["too small or too large"],
        ),
        ({"hidden_size": None}, ["hidden_size is missing"]),
        ({"hidden_size": True}, ["hidden_size is True"]),
        ({"hidden_size": 10**30}, ["hidden_size is 1000"]),
        ({"num_attention_heads": 0}, ["num_attention_heads is 0"]),
        ({"num_key_value_heads": 3}, ["4 query heads over 3 KV heads"]),
        ({"head_dim": 9}, ["heads of 9"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings is 'no'"]),
        ({"eos_token_id": "end"}, ["eos_token_id is 'end'"]),
    ],
)
def test_what_is_not_implemented_or_impossible_is_named(tmp_path: Path, more: dict[str, Any], words: list[str]) -> None:
    refused(directory(tmp_path, **more), *words)


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_biases_that_an_architecture_does_not_have_are_refused(tmp_path: Path, kind: str) -> None:
    path = directory(tmp_path, architecture=ARCHITECTURES[kind], attention_bias=True, mlp_bias=True)
    refused(path, "attention_bias=True", "mlp_bias=True")


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_a_default_that_differs_between_architectures_has_to_be_said(tmp_path: Path, kind: str) -> None:
    about = {**transformers_config(kind, tie_word_embeddings=True).to_dict()}
    del about["num_key_value_heads"]
    refused(written(tmp_path, about), "num_key_value_heads is missing")


def test_an_architecture_says_the_type_of_a_model_that_does_not(tmp_path: Path) -> None:
    path = directory(tmp_path, QWEN2, architecture="Qwen2ForCausalLM", model_type=None)
    assert "blk.0.attn_q.bias" in {p.name for p in load_huggingface(path).graph.parameters}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([0, 1, 2, 8, 1e400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*LLAMA3, "type"]), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(USED)), JSON, min_size=1, max_size=3))
def test_any_value_of_any_key_gives_a_model_error_or_a_model(tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "model"
    if not path.exists():
        directory(tmp_path)
        (path / "right.json").write_bytes((path / "config.json").read_bytes())
    right = json.loads((path / "right.json").read_text())
    (path / "config.json").write_text(json.dumps(right | more))
    message = ""
    try:
        load_huggingface(path)
    except ModelError as error:
        message = str(error)
    assert not message or str(path) in message


# rotary positions


@pytest.mark.parametrize("form", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    "kind,settings",
    [("default", {}), ("linear", {"factor": 4.0}), ("llama3", LLAMA3)],
    ids=["default", "linear", "llama3"],
)
def test_frequencies_are_those_of_transformers(tmp_path: Path, kind: str, settings: dict[str, Any], form: str) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    theta = 500000.0
    new = {"rope_type": kind, "rope_theta": theta, **settings}
    right = LlamaRotaryEmbedding(transformers_config("llama", rope_parameters=new)).inv_freq.numpy()
    given: dict[str, Any] = {"rope_theta": theta}
    given |= {"rope_parameters": new} if form == "rope_parameters" else {"rope_scaling": {"type": kind, **settings}}
    base, divisors = rope(directory(tmp_path, **given))
    found = base ** (-2.0 * np.arange(4) / 8) / np.array(divisors or (1.0,) * 4)
    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_rope_parameters_hold_the_base_before_the_config_does(tmp_path: Path) -> None:
    parameters = {"rope_type": "default", "rope_theta": 7e5}
    assert rope(directory(tmp_path, rope_theta=1e4, rope_parameters=parameters)) == (7e5, ())


def test_llama3_scaling_starts_from_the_context_where_it_does_not_say(tmp_path: Path) -> None:
    unsaid = {k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}
    path = directory(tmp_path, rope_scaling={"rope_type": "llama3", **unsaid}, max_position_embeddings=64)
    said = rope(directory(tmp_path, rope_scaling={"rope_type": "llama3", **LLAMA3}, max_position_embeddings=64))
    assert said == rope(path)


@pytest.mark.parametrize(
    "kind,more,longest",
    [
        ("mistral", {"sliding_window": 128}, 128),
        ("mistral", {"sliding_window": 128, "use_sliding_window": False}, 128),
        ("mistral", {"sliding_window": None}, 8192),
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": 9999}, 8192),
        ("qwen2", {"sliding_window": 128, "use_sliding_window": False}, 8192),
        ("qwen2", {"sliding_window": 128, "use_sliding_window": True}, 128),
        ("qwen2", {"sliding_window": 128, "layer_types": ["full_attention", "sliding_attention"]}, 128),
        ("qwen2", {"sliding_window": None, "use_sliding_window": True}, 8192),
        ("llama", {"sliding_window": 128}, 128),
    ],
)
def test_a_window_bounds_the_context_and_changes_nothing_within(
    tmp_path: Path, kind: str, more: dict[str, Any], longest: int
) -> None:
    path = directory(tmp_path, QWEN2 if kind == "qwen2" else SMALL, architecture=ARCHITECTURES[kind], **more)
    assert context(path) == longest


# weights


def rewritten(path: Path, change: dict[str, np.ndarray | None]) -> Path:
    """The same directory with some tensors changed, added or (None) taken away."""
    from safetensors.numpy import load_file, save_file

    file = path / "model.safetensors"
    tensors = {k: v for k, v in (load_file(file) | change).items() if v is not None}
    save_file(tensors, file)
    return path


def test_missing_surplus_and_misshapen_tensors_are_named_together(tmp_path: Path) -> None:
    at = "model.layers.1.self_attn"
    change = {
        f"{at}.o_proj.weight": None,
        f"{at}.k_proj.weight": np.zeros((8, 32), np.float32),
        f"{at}.q_norm.weight": np.zeros(8, np.float32),
        "blk.0.attn_q.bias": np.zeros(32, np.float32),
    }
    refused(
        rewritten(directory(tmp_path), change),
        f'"{at}.o_proj.weight" is missing',
        f'"{at}.k_proj.weight" has shape [8, 32] but must have [16, 32]',
        f'"{at}.q_norm.weight" is used by nothing',
        '"blk.0.attn_q.bias" is used by nothing',
    )


def test_a_llama_with_attention_bias_has_four_of_them_and_with_mlp_bias_three(tmp_path: Path) -> None:
    config = msgspec.structs.replace(SMALL, qkv_bias=True, output_bias=True, mlp_bias=True)
    graph = load_huggingface(directory(tmp_path, config)).graph
    assert {p.name for p in graph.parameters if p.name.startswith("blk.1.") and p.name.endswith("bias")} == {
        f"blk.1.{part}.bias" for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    }
    refused(directory(tmp_path, config, attention_bias=False), "self_attn.o_proj.bias", "is used by nothing")


def test_biases_that_the_config_promises_must_be_there(tmp_path: Path) -> None:
    refused(directory(tmp_path, attention_bias=True), '"model.layers.0.self_attn.o_proj.bias" is missing')
    refused(directory(tmp_path, mlp_bias=True), '"model.layers.0.mlp.gate_proj.bias" is missing')
    refused(directory(tmp_path, architecture="Qwen2ForCausalLM"), '"model.layers.0.self_attn.q_proj.bias" is missing')


def test_a_head_of_its_own(tmp_path: Path) -> None:
    config = msgspec.structs.replace(SMALL, tied=False)
    assert "output.weight" in {p.name for p in load_huggingface(directory(tmp_path, config)).graph.parameters}
    refused(directory(tmp_path, config, tie_word_embeddings=True), "tie_word_embeddings=True", "lm_head.weight")
    refused(directory(tmp_path, tie_word_embeddings=False), '"lm_head.weight" is missing')


def test_a_tied_head_may_be_stored_once_more(tmp_path: Path) -> None:
    path = rewritten(directory(tmp_path), {"lm_head.weight": WEIGHTS[SMALL]["token_embd.weight"]})
    assert load_huggingface(path).graph.hash == load_huggingface(directory(tmp_path)).graph.hash
    for other in (WEIGHTS[SMALL]["token_embd.weight"] + 1, np.zeros(97, np.float32)):
        refused(rewritten(path, {"lm_head.weight": other}), "lm_head.weight")


def test_tables_of_old_files_that_follow_from_the_config_are_left_out(tmp_path: Path) -> None:
    path = rewritten(directory(tmp_path), {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32)})
    assert load_huggingface(path).graph.hash == load_huggingface(directory(tmp_path)).graph.hash


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_widths_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = directory(tmp_path)
    tensors = {k: v.to(getattr(torch, dtype)) for k, v in load_file(path / "model.safetensors").items()}
    save_file(tensors, path / "model.safetensors")
    source = load_huggingface(path).graph.parameter("blk.0.ffn_up.weight").source
    right = tensors["model.layers.0.mlp.up_proj.weight"].float().numpy()
    np.testing.assert_array_equal(read(source, [(3, 17), (5, 30)]), right[3:17, 5:30])


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    change: dict[str, np.ndarray | None] = {
        "model.norm.weight": np.ones(32, np.int64),
        "lm_head.weight": np.ones(3, np.int8),
    }
    path = rewritten(directory(tmp_path), {"model.norm.weight": change["model.norm.weight"]})
    refused(path, '"model.norm.weight" has dtype I64')
    with pytest.raises(ModelError, match="dtype I8"):
        load_huggingface(rewritten(path, change))


def sharded(path: Path) -> Path:
    """The same weights in two files with an index."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: tensors[n] for n in part}, path / file)
    places = {name: file for file, part in halves.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def test_sharded_files_hold_the_same_weights(tmp_path: Path) -> None:
    found = {p.name: p.source for p in load_huggingface(sharded(directory(tmp_path))).graph.parameters}
    for name, weight in WEIGHTS[SMALL].items():
        np.testing.assert_array_equal(read(found[name], [(0, n) for n in shape_of(found[name])]), weight)


def test_an_index_that_disagrees_with_its_files_is_refused(tmp_path: Path) -> None:
    path = sharded(directory(tmp_path))
    index = path / "model.safetensors.index.json"
    right = json.loads(index.read_text())["weight_map"]
    (one, first), *_ = right.items()
    other = next(f for f in right.values() if f != first)
    for places, word in (
        ({**right, one: other}, f'"{one}"'),
        ({k: v for k, v in right.items() if k != one}, f'"{one}"'),
        ({**right, "more.weight": first}, '"more.weight"'),
        ({**right, one: "../model.safetensors"}, "not a file in its folder"),
        ({**right, one: 3}, "3 is not a file"),
        ([], "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        refused(path, word)
    index.write_text(json.dumps({"weight_map": right}))
    (path / first).unlink()
    refused(path, first, "No such file")
