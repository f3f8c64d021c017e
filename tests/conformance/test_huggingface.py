"""Hugging Face directories mean what `transformers` says they mean: the same logits to 1e-4 and the same greedy tokens.

Small random models of every kind of mathematics that a config can ask for, on two ranks; and SmolLM2, whose directory is
made of the dequantised weights of its GGUF file, against that file and llama.cpp too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import msgspec
import numpy as np
import pytest

import unitp
from unitp.frontends.gguf import llama_config
from unitp.frontends.gguf_file import read_gguf
from unitp.frontends.known_models import find
from unitp.frontends.llama import LlamaConfig
from unitp.frontends.model import Model
from unitp.frontends.tokenizer import PackageTokenizer
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plans import Plan
from unitp.plugins.discover import backends
from unitp.session.launch import launch
from unitp.testing.models import EAGER_TO_SPLIT, TINY, arrays, random_weights, write_huggingface

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

REFERENCE = Path(__file__).parent / "smollm2.npz"
PROMPTS = [[7, 250, 3, 99, 41, 12, 255], [11, 8, 200, 1, 76, 131, 18]]
NEW_TOKENS = 40
CLOSE = 1e-4
CONTEXT = 64

SMALL = msgspec.structs.replace(TINY, max_context=128, epsilon=1e-6, interleaved=False)
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
KINDS: dict[str, tuple[LlamaConfig, dict[str, Any]]] = {
    "qwen2": (msgspec.structs.replace(SMALL, qkv_bias=True, rope_base=1e6), {"architecture": "Qwen2ForCausalLM"}),
    "mistral": (
        msgspec.structs.replace(SMALL, head_dim=16, tied=False),
        {"architecture": "MistralForCausalLM", "sliding_window": 64},
    ),
    "llama3": (SMALL, {"rope_scaling": LLAMA3}),
    "linear": (SMALL, {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0}}),
    "mixtral": (
        msgspec.structs.replace(SMALL, tied=False, experts=5, chosen=2, hidden=40),
        {"architecture": "MixtralForCausalLM"},
    ),
    "biases": (msgspec.structs.replace(SMALL, qkv_bias=True, output_bias=True, mlp_bias=True, tied=False), {}),
}


def of_transformers(folder: Path, prompts: list[list[int]], new_tokens: int) -> tuple[np.ndarray, list[list[int]]]:
    """Greedy tokens, and the logits of every position of prompt and continuation but the last."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids, step, past = torch.tensor(prompts), torch.tensor(prompts), None
        logits = []
        for _ in range(new_tokens):
            out = model(step, past_key_values=past, use_cache=True)
            logits.append(out.logits)
            step, past = out.logits[:, -1:].argmax(-1), out.past_key_values
            ids = torch.cat([ids, step], 1)
    return torch.cat(logits, 1).numpy(), ids[:, len(prompts[0]) :].tolist()


def agrees(
    model: Model, plan: Plan, backend: str, prompts: list[list[int]], logits: np.ndarray, tokens: list[list[int]]
) -> None:
    """Logits of every position within 1e-4, and all greedy tokens."""
    with launch(model, plan, backend, context=CONTEXT) as session:
        sequences = [[*p, *more[:-1]] for p, more in zip(prompts, tokens, strict=True)]
        found = np.concatenate([session.run(input_ids=[s])["logits"] for s in sequences])
        generation = session.generation(prompts, len(tokens[0]), ignore_eos=True)
        for _ in generation:
            pass
    assert np.abs(found - logits).max() <= CLOSE
    assert generation.tokens == tokens


EACH_TIME = [("numpy", kind) for kind in KINDS] + [("torch", "qwen2"), ("torch", "llama3")]
ALL = [
    pytest.param(backend, kind, marks=[] if (backend, kind) in EACH_TIME else pytest.mark.full)
    for backend in sorted(backends())
    for kind in KINDS
]


@pytest.mark.parametrize("backend,kind", ALL)
def test_small_models_are_what_transformers_says(backend: str, kind: str, tmp_path: Path) -> None:
    config, more = KINDS[kind]
    folder = write_huggingface(tmp_path / kind, config, **more)
    logits, tokens = of_transformers(folder, PROMPTS, NEW_TOKENS)
    assert len({*tokens[0], *tokens[1]}) > 4, "a model that says one thing only shows nothing"
    model = unitp.load(folder)
    plan = plan_graph(Request(model.graph, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    assert any("tp[" in str(layout) for layout in plan.parameters.values())
    agrees(model, plan, backend, PROMPTS, logits, tokens)


def test_a_changed_constant_would_be_seen(tmp_path: Path) -> None:
    """The bound is tight enough: without its RoPE scaling the same model is far away."""
    config, more = KINDS["llama3"]
    weights = arrays(random_weights(config))
    scaled, _ = of_transformers(write_huggingface(tmp_path / "a", config, weights, **more), PROMPTS, 4)
    plain, _ = of_transformers(write_huggingface(tmp_path / "b", config, weights), PROMPTS, 4)
    prompt = len(PROMPTS[0])
    assert np.abs(scaled[:, :prompt] - plain[:, :prompt]).max() > 10 * CLOSE


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SmolLM2's dequantised weights and its tokenizer as a Hugging Face directory."""
    import shutil

    folder = tmp_path_factory.mktemp("hub") / "smollm2"
    file = read_gguf(find("smollm2-135m"))
    write_huggingface(folder, llama_config(file), arrays(file.tensors), eos_token_id=2)
    tokenizer = unitp.load("smollm2-135m").tokenizer
    assert isinstance(tokenizer, PackageTokenizer)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    yield folder
    shutil.rmtree(folder)


def test_smollm2_from_a_directory_is_smollm2_from_its_gguf_file(smollm2: Path) -> None:
    """As llama.cpp has it, as `transformers` has it, and as each other, on two ranks."""
    with np.load(REFERENCE, allow_pickle=False) as found:
        reference = dict(found)
    prompt = reference["capital.prompt_ids"].tolist()
    directory, file = unitp.load(smollm2), unitp.load("smollm2-135m")
    assert directory.graph.hash != file.graph.hash, "interleaved pairs and halves are different graphs"
    assert directory.tokenizer.encode("The capital of France is") == prompt
    logits, tokens = of_transformers(smollm2, [prompt], 24)
    assert tokens[0] == reference["capital.greedy_ids"][:24].tolist()
    assert np.abs(logits[0, len(prompt) - 1] - reference["capital.last_logits"]).max() <= CLOSE
    for model, backend in ((directory, "numpy"), (directory, "torch"), (file, "numpy")):
        agrees(model, unitp.plan(model, mesh=Mesh(tp=2)), backend, [prompt], logits, tokens)


def test_its_tokenizer_is_what_transformers_says(smollm2: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(smollm2 / "tokenizer.json"))
    ours = unitp.load(smollm2).tokenizer
    for text in ("The capital of France is", "2024 é 😀\n\n  x", "<|im_start|>user\nHi<|im_end|>", ""):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
