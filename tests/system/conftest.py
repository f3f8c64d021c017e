"""Fixtures of tests that start processes: a model small enough to start often, and a backend without a framework."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.graph.graph import Graph
from unitp.graph.source import RandomSource
from unitp.plugins.spec import BackendSpec
from unitp.testing.models import TINY, arrays, random_weights, write_huggingface

FAKES = Path(__file__).parents[1] / "fakes"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> BackendSpec:
    """The backend of tests/fakes."""
    monkeypatch.syspath_prepend(str(FAKES))
    from unitp_fake import SPEC

    assert isinstance(SPEC, BackendSpec)
    return SPEC


def tiny_decoder(layers: int = 2, context: int = 1024, vocab: int = 97) -> Graph:
    """A decoder with random weights: 9 query heads over 3 KV heads."""
    c = LlamaConfig(
        layers=layers, width=72, heads=9, kv_heads=3, head_dim=8, hidden=64, vocab=vocab, max_context=context
    )
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (c.vocab, c.width), "output_norm.weight": (c.width,)}
    for layer in range(layers):
        at = f"blk.{layer}"
        kv = c.kv_heads * c.head_dim
        shapes |= {f"{at}.attn_norm.weight": (c.width,), f"{at}.ffn_norm.weight": (c.width,)}
        shapes |= {f"{at}.attn_q.weight": (c.width, c.width), f"{at}.attn_output.weight": (c.width, c.width)}
        shapes |= {f"{at}.attn_k.weight": (kv, c.width), f"{at}.attn_v.weight": (kv, c.width)}
        shapes |= {f"{at}.ffn_gate.weight": (c.hidden, c.width), f"{at}.ffn_up.weight": (c.hidden, c.width)}
        shapes |= {f"{at}.ffn_down.weight": (c.width, c.hidden)}
    weights = {
        name: RandomSource(seed, shape, scale=0.3, offset=1.0 if len(shape) == 1 else 0.0)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    return decoder_graph("tiny", c, weights)


@pytest.fixture(scope="session")
def tiny() -> Graph:
    return tiny_decoder()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model in a Hugging Face directory, without a tokenizer."""
    return str(write_huggingface(tmp_path_factory.mktemp("models") / "tiny", TINY, arrays(random_weights(TINY))))


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model whose tokens are the bytes, with a chat template; its stop token is the end of a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    at = write_huggingface(
        tmp_path_factory.mktemp("models") / "talking", TINY, arrays(random_weights(TINY)), eos_token_id=256
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(at / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    about = {"eos_token": "<end>", "chat_template": template}
    (at / "tokenizer_config.json").write_text(json.dumps(about))
    return str(at)
