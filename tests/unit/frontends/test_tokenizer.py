"""Text to tokens and back: SmolLM2's tokenizer as llama.cpp has it, nothing lost on the way, characters shown when complete."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models

import unitp
from unitp.errors import ModelError
from unitp.frontends.tokenizer import WAYS, GgufTokenizer, JsonTokenizer, PackageTokenizer, Tokenizer, load_tokenizer
from unitp.testing.models import metadata, write_gguf

REFERENCE = Path(__file__).parents[2] / "conformance" / "smollm2.npz"
TEXTS = {"capital": "The capital of France is", "code": "def fibonacci(n):\n"}
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@lru_cache
def smollm2() -> Tokenizer:
    return unitp.load("smollm2-135m").tokenizer


def small(folder: Path, **more: Any) -> PackageTokenizer:
    made = load_tokenizer(GgufTokenizer(str(write_gguf(folder / "small.gguf", **more))))
    assert isinstance(made, PackageTokenizer)
    return made


@pytest.mark.parametrize("name", TEXTS)
def test_prompts_are_encoded_as_llama_cpp_encodes_them(name: str) -> None:
    with np.load(REFERENCE, allow_pickle=False) as reference:
        prompt, greedy = (reference[f"{name}.{part}"].tolist() for part in ("prompt_ids", "greedy_ids"))
    assert smollm2().encode(TEXTS[name]) == prompt
    assert smollm2().decode(prompt) == TEXTS[name]
    assert smollm2().decode(prompt + greedy).startswith(TEXTS[name])


@pytest.mark.parametrize(
    "text,pieces",
    [
        ("2024", ["2", "0", "2", "4"]),
        ("a  b", ["a", " ", " b"]),
        ("I'll go", ["I", "'ll", " go"]),
        ("x\n\ny", ["x", "\n", "\n", "y"]),
        ("<|im_start|>user\n", ["", "user", "\n"]),
    ],
)
def test_where_text_is_cut(text: str, pieces: list[str]) -> None:
    """Digits one by one, contractions, spaces with the word that follows; special tokens are one token and no text."""
    tokenizer = smollm2()
    assert [tokenizer.decode([i]) for i in tokenizer.encode(text)] == pieces


def test_special_tokens_in_a_text_are_themselves() -> None:
    tokenizer = smollm2()
    start, end = tokenizer.token_id("<|im_start|>"), tokenizer.token_id("<|im_end|>")
    ids = tokenizer.encode("<|im_start|>user\nHi<|im_end|>")
    assert (ids[0], ids[-1]) == (start, end)
    assert (start, end) == (1, 2)
    assert tokenizer.decode(ids) == "user\nHi"
    assert tokenizer.token_id("no such token") is None


def test_a_tokenizer_with_all_bytes_keeps_every_text(tmp_path: Path) -> None:
    tokenizer = small(tmp_path)

    @settings(max_examples=300, deadline=None)
    @given(TEXT.filter(lambda text: "<|" not in text))
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text

    check()


def test_smollm2_has_no_token_for_some_bytes_and_drops_them() -> None:
    """As llama.cpp does: the vocabulary is what it is. All other text is kept."""
    assert [tokenizer_has(byte) for byte in (0x06, 0xF1, ord("a"), 0xC3)] == [False, False, True, True]
    assert smollm2().decode(smollm2().encode("a\x06b")) == "ab"


@lru_cache
def tokenizer_has(byte: int) -> bool:
    letters = metadata()["tokenizer.ggml.tokens"][2:258]
    return smollm2().token_id(letters[byte]) is not None


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(TEXT.filter(lambda text: "<|" not in text and all(map(tokenizer_has, text.encode()))))
def test_smollm2_keeps_text_of_the_bytes_that_it_has(text: str) -> None:
    assert smollm2().decode(smollm2().encode(text)) == text


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(TEXT)
def test_a_stream_shows_what_decoding_shows(text: str) -> None:
    """Piece by piece, without a replacement character where the whole has none."""
    tokenizer = smollm2()
    ids, stream = tokenizer.encode(text), tokenizer.stream()
    pieces = [stream.add(i) for i in ids] + [stream.end()]
    whole = tokenizer.decode(ids)
    assert "".join(pieces) == whole
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.integers(0, 49151), max_size=30))
def test_a_stream_of_any_tokens_shows_what_decoding_shows(ids: list[int]) -> None:
    """Also of tokens that make no characters."""
    stream = smollm2().stream()
    assert "".join([*map(stream.add, ids), stream.end()]) == smollm2().decode(ids)


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = smollm2()
    ids, stream = tokenizer.encode("a😀b"), tokenizer.stream()
    assert len(ids) > 3
    pieces = [stream.add(i) for i in ids]
    assert "".join(pieces) == "a😀b"
    assert set(pieces) == {"a", "", "😀", "b"}


def test_an_unfinished_character_shows_at_the_end(tmp_path: Path) -> None:
    tokenizer = small(tmp_path)
    first, _ = tokenizer.encode("é")
    stream = tokenizer.stream()
    assert (stream.add(first), stream.end(), stream.end()) == ("", "\ufffd", "")


def test_tokens_become_words_by_their_merges(tmp_path: Path) -> None:
    tokenizer = small(tmp_path)
    tokens = metadata()["tokenizer.ggml.tokens"]
    assert [tokens[i] for i in tokenizer.encode("the theth")] == ["the", "\u0120the", "th"]


def test_a_tokenizer_json_that_drops_the_first_space_streams_it(tmp_path: Path) -> None:
    """As Llama 2's does: decoding begins without a space, but streamed text goes on from a prompt, or from a special token."""
    made = {"<unk>": 0, "</s>": 1, "\u2581the": 2, "\u2581": 3, "a": 4, "b": 5, "<0xC3>": 6, "<0xA9>": 7}
    fast = Fast(models.BPE(made, [], unk_token="<unk>", byte_fallback=True))
    fast.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast.add_special_tokens(["</s>"])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(JsonTokenizer(str(tmp_path / "tokenizer.json")))
    for ids, pieces in {
        (2, 2, 3, 4): " the| the| |a",
        (3, 2, 5): " | the|b",
        (5, 1, 2, 1, 1, 3, 2): "b|| the||| | the",
        (2, 6, 7, 2): " the||é| the",
    }.items():
        stream = tokenizer.stream()
        assert [stream.add(i) for i in ids] == pieces.split("|")
        assert stream.end() == ""
        assert tokenizer.decode(ids) == pieces.replace("|", "").removeprefix(" ")


# what stands before a prompt


def test_a_prompt_begins_as_the_file_says(tmp_path: Path) -> None:
    assert small(tmp_path).encode("the")[0] == 259
    tokenizer = small(tmp_path, tokenizer__ggml__add_bos_token=True)
    assert tokenizer.encode("the") == [1, 259]
    assert tokenizer.encode("") == [1]
    assert tokenizer.encode("the", bos=False) == [259]
    assert small(tmp_path, tokenizer__ggml__add_bos_token=True, tokenizer__ggml__bos_token_id=0).encode("") == [0]


@pytest.mark.parametrize("pre", [*WAYS])
def test_llama_3_begins_a_prompt_also_where_the_file_does_not_say(tmp_path: Path, pre: str) -> None:
    """As llama.cpp encodes with the same files (xllamacpp 2026.10.11549; "gpt2" is a name that it does not know)."""
    tokenizer = small(tmp_path, tokenizer__ggml__pre=pre, tokenizer__ggml__add_bos_token=None)
    begins = [1] if pre in ("llama-bpe", "llama3", "llama-v3") else []
    assert tokenizer.encode("the") == [*begins, 259]
    assert tokenizer.encode("") == begins


def test_a_tokenizer_json_says_itself_what_stands_before(tmp_path: Path) -> None:
    """As `transformers` does it: by the post-processor, not by `tokenizer_config.json`."""
    for bos in (False, True):
        made = small(tmp_path, tokenizer__ggml__add_bos_token=bos)
        (tmp_path / "tokenizer.json").write_text(made.to_json(), "utf-8")
        read = load_tokenizer(JsonTokenizer(str(tmp_path / "tokenizer.json")))
        for text in ("the é <|end|>", "", "\n\n the"):
            assert read.encode(text) == made.encode(text)
            assert read.encode(text, bos=False) == made.encode(text, bos=False)


def test_the_ways_of_cutting_text(tmp_path: Path) -> None:
    """Digits: together, one by one, in threes; a letter joined to what stands before it; characters made one."""

    def cut(pre: str, text: str) -> list[str]:
        fast = Fast.from_str(small(tmp_path, tokenizer__ggml__pre=pre).to_json())
        return [text[a:b] for _, (a, b) in fast.pre_tokenizer.pre_tokenize_str(text)]

    assert cut("gpt-2", "x 12345!y") == ["x", " 12345", "!", "y"]
    assert cut("smollm", "x 123!y") == ["x", " ", "1", "2", "3", "!", "y"]
    assert cut("llama-bpe", "x 12345!y") == ["x", " ", "123", "45", "!y"]
    assert cut("qwen2", "x 123!y") == ["x", " ", "1", "2", "3", "!y"]
    assert cut("qwen2", "I'LL") == ["I", "'LL"]
    composed, apart = "\u00e9", "e\u0301"
    qwen2 = small(tmp_path, tokenizer__ggml__pre="qwen2")
    assert qwen2.encode(apart) == qwen2.encode(composed)


@pytest.mark.parametrize("pre", [*WAYS])
def test_every_known_way_keeps_the_text(tmp_path: Path, pre: str) -> None:
    tokenizer = small(tmp_path, tokenizer__ggml__pre=pre)
    text = "The 3 the\n\n  thé, I'll 2024!\t😀"
    assert tokenizer.decode(tokenizer.encode(text)) == text


# what is refused


@pytest.mark.parametrize(
    "more,words",
    [
        ({"tokenizer__ggml__model": "bert"}, ['tokenizer model "bert"', "gpt2, llama", "--prompt-ids"]),
        ({"tokenizer__ggml__model": None}, ['tokenizer model "None"']),
        ({"tokenizer__ggml__pre": "smollx"}, ['tokenizer.ggml.pre "smollx"', "smollm"]),
        ({"tokenizer__ggml__add_eos_token": True}, ["add_eos_token=True"]),
        ({"tokenizer__ggml__add_bos_token": True, "tokenizer__ggml__bos_token_id": 262}, ["bos_token_id is 262"]),
        ({"tokenizer__ggml__add_bos_token": True, "tokenizer__ggml__bos_token_id": None}, ["bos_token_id is None"]),
        ({"tokenizer__ggml__add_bos_token": "yes"}, ["add_bos_token is 'yes'"]),
        ({"tokenizer__ggml__merges": ["t h", "x yz"]}, ["corrupt"]),
        ({"tokenizer__ggml__merges": ["th"]}, ["corrupt"]),
        ({"tokenizer__ggml__merges": [3]}, ["tokenizer.ggml.merges is [3]"]),
        ({"tokenizer__ggml__token_type": ["control"]}, ["token_type is ['control']"]),
    ],
)
def test_what_a_tokenizer_cannot_be_is_named(tmp_path: Path, more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        small(tmp_path, **more)
    for word in ("small.gguf", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "gemma4", "no_vocab", "", None])
def test_a_model_with_a_tokenizer_of_another_kind_works_on_token_ids(tmp_path: Path, kind: str | None) -> None:
    """It shows token ids, and refuses text by the name of the kind."""
    model = unitp.load(write_gguf(tmp_path / "small.gguf", tokenizer__ggml__model=kind))
    assert model.graph.outputs[0] == "logits"
    stream = model.speller.stream()
    assert "".join([*map(stream.add, [7, 8, 261]), stream.end()]) == "7 8 261"
    with pytest.raises(ModelError, match=f'tokenizer model "{kind}"'):
        _ = model.tokenizer


@pytest.mark.parametrize("data", [b"", b"[]", json.dumps({"model": {"type": "New"}}).encode(), b"\xfe"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(JsonTokenizer(str(path)))
    with pytest.raises(ModelError, match="cannot read"):
        load_tokenizer(JsonTokenizer(str(tmp_path / "none.json")))


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_a_truncated_tokenizer_json_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = small(tmp_path).to_json().encode()
    path = tmp_path / "tokenizer.json"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ModelError, match="is not a tokenizer"):
        load_tokenizer(JsonTokenizer(str(path)))
