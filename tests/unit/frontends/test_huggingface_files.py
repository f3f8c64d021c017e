"""What lies beside the weights of a Hugging Face directory: settings, stop tokens, tokenizer, chat template; any may be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import unitp
from unitp.errors import InputError, ModelError
from unitp.frontends.huggingface import load_huggingface
from unitp.testing.models import SMALL, write_huggingface


def directory(folder: Path, **more: Any) -> Path:
    return write_huggingface(folder / "model", SMALL, **more)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_huggingface(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_directory_without_its_parts_says_which(tmp_path: Path) -> None:
    path = directory(tmp_path)
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    refused(path, "model.safetensors", "No such file", "safetensors")
    (path / "config.json").unlink()
    refused(path, "config.json", "No such file")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("data", [b'{"a": ', b"\xff\xfe", b"[1]", b"[" * 100_000], ids=["cut", "bytes", "list", "deep"])
def test_a_corrupt_settings_file_is_named(tmp_path: Path, file: str, data: bytes) -> None:
    path = directory(tmp_path)
    (path / file).write_bytes(data)
    refused(path, file)


def test_a_model_without_a_tokenizer_works_on_token_ids(tmp_path: Path) -> None:
    model = unitp.load(directory(tmp_path))
    with pytest.raises(ModelError, match="has no tokenizer") as caught:
        _ = model.tokenizer
    assert "--prompt-ids" in caught.value.hint
    stream = model.speller.stream()
    assert "".join(stream.add(i) for i in (5, 17, 2)) + stream.end() == "5 17 2"


@pytest.mark.parametrize(
    "data", [b"{}", b"{", b"\xff", b'{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}']
)
def test_a_corrupt_tokenizer_is_named(tmp_path: Path, data: bytes) -> None:
    path = directory(tmp_path)
    (path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        _ = load_huggingface(path).tokenizer


def test_stop_tokens_are_the_generation_configs_before_the_models(tmp_path: Path) -> None:
    path = directory(tmp_path, eos_token_id=7)

    def stops() -> tuple[int, ...]:
        decoder = load_huggingface(path).decoder
        assert decoder is not None
        return decoder.stop_ids

    assert stops() == (7,)
    for text, right in (('{"eos_token_id": [3, 4, 5000]}', (3, 4)), ('{"eos_token_id": 0}', (0,)), ("{}", (7,))):
        (path / "generation_config.json").write_text(text)
        assert stops() == right
    (path / "generation_config.json").write_text('{"eos_token_id": ["x"]}')
    refused(path, "generation_config.json", "eos_token_id")


@pytest.mark.parametrize(
    "settings,file,right",
    [
        ({}, None, ""),
        ({"chat_template": "own"}, None, "own"),
        ({"chat_template": "own"}, "file", "file"),
        ({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}, None, "d"),
        ({"chat_template": [{"name": "rag", "template": "r"}]}, None, ""),
    ],
)
def test_where_the_chat_template_is_found(
    tmp_path: Path, settings: dict[str, Any], file: str | None, right: str
) -> None:
    path = directory(tmp_path)
    tokens = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings | tokens))
    if file:
        (path / "chat_template.jinja").write_text(file)
    decoder = load_huggingface(path).decoder
    assert decoder is not None
    assert (decoder.chat_template, decoder.bos_token, decoder.eos_token) == (right, "<s>", "</s>")


@pytest.mark.parametrize(
    "settings",
    [
        {"chat_template": 5},
        {"chat_template": {"name": "default"}},
        {"chat_template": [{"name": "default", "template": 5}]},
        {"bos_token": 5},
        {"eos_token": {"content": 5}},
        {"eos_token": ["</s>"]},
    ],
)
def test_settings_of_another_kind_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = directory(tmp_path)
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    refused(path, "tokenizer_config.json", next(iter(settings)))


def test_names_of_templates_may_be_anything(tmp_path: Path) -> None:
    path = directory(tmp_path)
    named = [{"name": [], "template": "x"}, 7, {"name": {}}, {"template": "y"}, {"name": "default", "template": "d"}]
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named, "bos_token": None}))
    decoder = load_huggingface(path).decoder
    assert decoder is not None
    assert (decoder.chat_template, decoder.bos_token) == ("d", "")


@pytest.mark.parametrize("number", ["1" * 5000, "\u0661", "01", "-1", "1e3"])
def test_numbers_of_layers_are_numbers(tmp_path: Path, number: str) -> None:
    path = directory(tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors[f"model.layers.{number}.input_layernorm.weight"] = tensors.pop("model.layers.0.input_layernorm.weight")
    save_file(tensors, path / "model.safetensors")
    refused(path, "is missing", "is used by nothing")


@pytest.mark.parametrize("text", ["a\udcff", "\ud800"])
def test_a_text_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """As `--prompt $'\\xff'` gives it."""
    path = directory(tmp_path)
    (path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    tokenizer = load_huggingface(path).tokenizer
    assert tokenizer.encode("ab") == [2]
    for use in (tokenizer.encode, tokenizer.token_id):
        with pytest.raises(InputError, match="is not Unicode"):
            use(text)


TOKENIZER: dict[str, Any] = {
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}  # fmt: skip
DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            "its precompiled_charsmap is truncated",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
            "its precompiled_charsmap is truncated",
        ),
        ({"decoder": [{"a": {"precompiled_charsmap": "/////w=="}}]}, "its precompiled_charsmap is truncated"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "x"}}, "its precompiled_charsmap: "),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}}, "cannot encode a text"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [DOUBLED] * 40}},
            "it makes a text up to 1099511627776 times as long",
        ),
        ({"decoder": {"type": "Sequence", "decoders": [DOUBLED] * 7}}, "it makes a text up to 128 times as long"),
        ({"normalizer": DOUBLED | {"pattern": {"Regex": ""}, "content": "x" * 65}}, "up to 65 times"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "cannot encode a text: chunk size"),
    ],
)
def test_a_tokenizer_that_panics_or_grows_is_refused(tmp_path: Path, part: dict[str, Any], why: str) -> None:
    path = directory(tmp_path)
    (path / "tokenizer.json").write_text(json.dumps(TOKENIZER | part))
    with pytest.raises(ModelError, match=why):
        load_huggingface(path).tokenizer.encode("ab")


def test_a_table_of_characters_is_found_however_it_is_written(tmp_path: Path) -> None:
    """The package would ask for 8 GiB, and end the process where there is less."""
    path = directory(tmp_path)
    text = json.dumps(TOKENIZER | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}})
    twice = text.replace(
        '"normalizer":', '"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}, "normalizer":', 1
    )
    for written in (text.replace("precompiled_charsmap", r"precompile\u0064_charsmap"), twice):
        (path / "tokenizer.json").write_text(written)
        with pytest.raises(ModelError, match=r"is truncated|is there twice"):
            _ = load_huggingface(path).tokenizer


def test_replacements_of_real_tokenizers_are_taken(tmp_path: Path) -> None:
    path = directory(tmp_path)
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    steps = [{"type": "Prepend", "prepend": "\u2581"}, space, DOUBLED]
    (path / "tokenizer.json").write_text(
        json.dumps(TOKENIZER | {"normalizer": {"type": "Sequence", "normalizers": steps}})
    )
    assert load_huggingface(path).tokenizer.encode("ab") == [0, 2]
