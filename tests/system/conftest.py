"""Fixtures of tests that start processes: a model small enough to start often, and a backend without a framework."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_decoder

from unitp.graph.graph import Graph
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
