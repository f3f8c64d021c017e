"""Text and token ids on the command line: GGUF files with the tokenizer of Llama 2, and with one that unitp does not know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unitp.testing.models import sentencepiece, write_gguf, write_sentencepiece

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]
TOKENS: list[str] = sentencepiece()["tokenizer.ggml.tokens"]


def generate(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "unitp", "generate", *map(str, arguments), "--max-new-tokens", "5", "--ignore-eos"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_a_prompt_of_text_is_continued_with_the_tokens_of_llama_2(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "small.gguf")
    found = json.loads(generate(path, "--prompt", "the world", "--json").stdout)
    prompt = [TOKENS.index(piece) for piece in ("<s>", "\u2581the", "\u2581world")]
    assert found["prompt_ids"] == prompt
    by_ids = json.loads(generate(path, "--prompt-ids", ",".join(map(str, prompt)), "--json").stdout)
    assert (by_ids["tokens"], by_ids["text"]) == (found["tokens"], found["text"])
    assert len(found["tokens"]) == 5


def test_a_model_whose_tokenizer_is_unknown_shows_token_ids_and_refuses_text(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "small.gguf", tokenizer__ggml__model="rwkv")
    shown = generate(path, "--prompt-ids", "5,17,3")
    tokens = [int(token) for token in shown.stdout.split()]
    assert len(tokens) == 5
    assert json.loads(generate(path, "--prompt-ids", "5,17,3", "--json").stdout)["tokens"] == tokens
    refused = generate(path, "--prompt", "text", code=2)
    for word in ("small.gguf", 'tokenizer model "rwkv"', "--prompt-ids"):
        assert word in refused.stderr
    assert "starting" not in refused.stderr
