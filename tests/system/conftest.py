"""Fixtures of tests that start processes: a model small enough to start often, and a backend without a framework."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitp.graph.graph import Graph
from unitp.plugins.spec import BackendSpec
from unitp.testing import models

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
    return models.tiny(vocab=97, max_context=1024).graph


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model whose tokens are the bytes, with a chat template; its stop token is the end of a turn."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    at = models.write_huggingface(tmp_path_factory.mktemp("models") / "talking", eos_token_id=256)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(at / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    about = {"eos_token": "<end>", "chat_template": template}
    (at / "tokenizer_config.json").write_text(json.dumps(about))
    return str(at)
