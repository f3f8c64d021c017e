"""Configs of models, and what lies beside them, as a stranger writes them.

A config that is changed without harm has to give the same graph; one that is taken has to give a graph of modest size, which can
be planned.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mutations import NUMBERS, changed, damaged, dump, name, odd

import unitp
from unitp.frontends.configs import CONFIGS
from unitp.frontends.huggingface import HARMLESS
from unitp.mesh import Mesh

NAME = "configs"
MOST_NODES = 100_000
PLANNED = 400
"""Graphs of so many nodes are planned as well."""
BESIDE = {
    "tokenizer_config.json": {
        "bos_token": {"content": "<s>", "lstrip": False, "special": True},
        "eos_token": "</s>",
        "chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "rag", "template": "x"}],
        "model_max_length": 10**30,
        "added_tokens_decoder": {"0": {"content": "<unk>"}},
    },
    "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2, 3], "transformers_version": "5.0.0"},
}


@dataclass(frozen=True)
class Input:
    """Files by name. `alone`: the config is given itself, not its folder. `right`: of which model it is a change without harm."""

    files: dict[str, bytes]
    folder: Path
    alone: bool = False
    right: str = ""

    @property
    def harmless(self) -> bool:
        return bool(self.right)


SMALL = {
    "num_hidden_layers": 2,
    "vocab_size": 97,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@cache
def config(of: str) -> dict[str, Any]:
    """The config of a known model with small sizes."""
    return {**CONFIGS[of].config, **SMALL}


@cache
def graph_of(of: str, folder: Path) -> str:
    """The hash of its graph."""
    path = folder / "original"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config(of)))
    found = unitp.load(path).graph.hash
    shutil.rmtree(path)
    return found


MODELS = ("llama-3.1-8b", "qwen2.5-0.5b", "mixtral-8x7b")
KEYS = (
    "num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "head_dim",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "use_sliding_window",
    "layer_types", "eos_token_id", "tie_word_embeddings", "attention_bias", "mlp_bias", "num_local_experts", "num_experts_per_tok",
    "model_type", "architectures", "hidden_act", "quantization_config", "pruned_heads", "bos_token_id",
)  # fmt: skip


def one(rng: random.Random, folder: Path) -> Input:
    of = rng.choice(MODELS)
    about: Any = dict(config(of))
    what = rng.choices(
        ("harmless", "changed", "numbers", "keys", "rope", "beside", "bytes"), (15, 20, 20, 15, 10, 12, 8)
    )[0]
    alone = rng.random() < 0.4
    files: dict[str, bytes] = {}
    match what:
        case "harmless":
            return Input(harmless(rng, about), folder / "model", alone, of)
        case "changed":
            about = changed(rng, about)
        case "numbers":
            for key in rng.sample(KEYS[:13], rng.choice((1, 1, 2, 3))):
                about[key] = rng.choice(NUMBERS)
        case "keys":
            for _ in range(rng.choice((1, 2, 500))):
                about[rng.choice((*KEYS, name(rng)))] = odd(rng)
        case "rope":
            about[rng.choice(("rope_scaling", "rope_parameters"))] = rope(rng)
        case "beside":
            file = rng.choice(list(BESIDE))
            files = {file: dump(changed(rng, BESIDE[file])).encode(errors="surrogatepass")}
            if rng.random() < 0.2:
                files["chat_template.jinja"] = rng.choice((rng.randbytes(99), b"{{ x }}" * 999_999, b"\xff"))
            alone = False
        case "bytes":
            return Input({"config.json": damaged(rng, json.dumps(about).encode())}, folder / "model", alone)
    return Input({"config.json": dump(about).encode(errors="surrogatepass"), **files}, folder / "model", alone)


def harmless(rng: random.Random, about: dict[str, Any]) -> dict[str, bytes]:
    """Keys in another order, spaces, keys without a bearing, and files beside it that are as they should be."""
    about |= {
        key: rng.choice((1, None, [1, {"a": 2.5}], "x", {"0": "LABEL_0"})) for key in rng.sample(sorted(HARMLESS), 3)
    }
    about |= rng.choice(
        ({}, {"hidden_act": "silu"}, {"quantization_config": None}, {"pruned_heads": {}}, {"use_mrope": False})
    )
    keys = list(about)
    rng.shuffle(keys)
    text = json.dumps(
        {key: about[key] for key in keys}, indent=rng.choice((None, 1, 8)), ensure_ascii=rng.random() < 0.5
    )
    files = {"config.json": f"{rng.choice(('', ' ', chr(10) * 99))}{text}\n".encode()}
    return files | {file: json.dumps(BESIDE[file]).encode() for file in BESIDE if rng.random() < 0.5}


def rope(rng: random.Random) -> Any:
    made = {
        "rope_type": rng.choice(("llama3", "linear", "default", "yarn", odd(rng))),
        "factor": rng.choice((8.0, *NUMBERS)),
        "low_freq_factor": rng.choice((1.0, *NUMBERS)),
        "high_freq_factor": rng.choice((4.0, *NUMBERS)),
        "original_max_position_embeddings": rng.choice((8192, *NUMBERS)),
        "rope_theta": rng.choice((1e4, *NUMBERS)),
    }
    return {key: made[key] for key in made if rng.random() < 0.8}


def feed(given: Input) -> bool:
    """Load the config; plan what is small. Raises UnitpError where it is refused."""
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir()
    for file, data in given.files.items():
        (given.folder / file).write_bytes(data)
    model = unitp.load(given.folder / "config.json" if given.alone else given.folder)
    assert len(model.graph.nodes) <= MOST_NODES
    assert model.decoder is not None
    assert all(0 <= i < model.decoder.vocab for i in model.decoder.stop_ids)
    for text in (model.decoder.chat_template, model.decoder.bos_token, model.decoder.eos_token):
        text.encode()
    if given.right:
        assert model.graph.hash == graph_of(given.right, given.folder.parent)
        return True
    if len(model.graph.nodes) <= PLANNED and len(given.files) == 1:
        made = unitp.plan(model, Mesh(tp=2), allow_unused=True)
        assert 0.0 < made.certificate.objective_s < float("inf")
    return False
