"""Text to tokens and back for GGUF files of the kind "llama" (Llama 2, TinyLlama, Mistral): what llama.cpp and SentencePiece make of it.

The tables are llama.cpp's own results for the small vocabulary of `unitp.testing.models` (xllamacpp 2026.10.11549:
`llama_tokenize` with special tokens added and read, `llama_token_to_piece`). Against the same llama.cpp were checked, all equal:
2,547 texts (special tokens, runs of spaces, newlines, CJK, emoji, random code points, periodic texts) on each of 6 vocabularies
(trained by SentencePiece 0.2.3 with and without a space before the text; all scores equal; periodic pieces with and without equal
scores; user-defined, unused and undefined tokens), and the bytes of 3,847 sequences of tokens, 1,300 of them random, on each of
these and on one without tokens of bytes. SentencePiece itself encodes the 2,074 to 2,099 of these texts that hold no special
tokens equally, with tokens of bytes, without them, and without a space before the text. It decodes equally but for two things: a
character cut short shows a replacement character per byte there, one here (as Unicode recommends), and it keeps a space that
comes first as a byte's token, which llama.cpp and unitp drop. After a special token at the beginning, unitp drops the space of
the first word, as SentencePiece does; llama.cpp keeps it, and does not give the text back that was encoded.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import unitp
from unitp.errors import ModelError
from unitp.frontends.gguf_file import read_gguf
from unitp.frontends.sentencepiece import SentencePiece
from unitp.frontends.tokenizer import GgufTokenizer, Tokenizer, load_tokenizer
from unitp.testing.models import sentencepiece, write_sentencepiece

TOKENS: list[str] = sentencepiece()["tokenizer.ggml.tokens"]
PARTS = [
    " ",
    "  ",
    "     ",
    "\n",
    "the",
    " the",
    "world",
    "banana",
    "an",
    "é",
    "e\u0301",
    "日本",
    "龍",
    "😀",
    "<0x0A>",
]
TEXT = st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=12).map("".join)
SPECIAL = ("<s>", "</s>", "<unk>", "[INST]", "[/INST]")
PLAIN = TEXT.filter(lambda text: "\u2581" not in text and not any(token in text for token in SPECIAL))
"""Text without special tokens: after one, llama.cpp puts a space before what follows, which is then part of the text."""

USUAL = {
    "": "<s>",
    " ": "<s> ▁▁",
    "   ": "<s> ▁▁▁▁",
    "the world is in Paris": "<s> ▁the ▁world ▁is ▁in ▁Paris",
    " the  world ": "<s> ▁▁ t he ▁▁ w or ld ▁",
    "a\nb\n\n": "<s> ▁a <0x0A> b <0x0A> <0x0A>",
    "banana bananana": "<s> ▁b an ana ▁b an an ana",
    "the the": "<s> ▁the ▁the",
    "thethe": "<s> ▁the t he",
    "日本日 本é": "<s> ▁ 日本 日 ▁ 本 é",
    "龍😀": "<s> ▁ <0xE9> <0xBE> <0x8D> <0xF0> <0x9F> <0x98> <0x80>",
    "é\u0301": "<s> ▁ é <0xCC> <0x81>",
    "<s> the</s>Paris": "<s> <s> ▁▁ t he </s> ▁Paris",
    "[INST] the [/INST]  an": "<s> [INST] ▁▁ t he ▁ [/INST] ▁▁ ▁an",
    "x<unk>y": "<s> ▁ <0x78> <unk> ▁ <0x79>",
    "<0x0A>": "<s> ▁ <0x3C> <0x30> <0x78> <0x30> <0x41> <0x3E>",
    "▁the": "<s> ▁▁ t he",
    "\x00\x7f": "<s> ▁ <0x00> <0x7F>",
    "     of": "<s> ▁▁▁▁ ▁▁ of",
    "and, ananan.": "<s> ▁and , ▁an an an .",
}
BARE = {
    "": "",
    " ": "▁",
    "   ": "▁▁▁",
    "the world is in Paris": "t he ▁world ▁is ▁in ▁Paris",
    " the  world ": "▁the ▁▁ w or ld ▁",
    "banana bananana": "banana ▁b an an ana",
    "the the": "t he ▁the",
    "<s> the</s>Paris": "<s> ▁the </s> Pa ris",
    "[INST] the [/INST]  an": "[INST] ▁the▁ [/INST] ▁▁ an",
    "▁the": "▁the",
    "     of": "▁▁▁▁ ▁ of",
    "and, ananan.": "an d , ▁an an an .",
}
FLAT = {
    "the world is in Paris": "<s> ▁the▁ w or ld ▁is ▁in ▁Paris",
    "banana bananana": "<s> ▁b ana na ▁b ana nan a",
    "the the": "<s> ▁the▁ t he",
    "thethe": "<s> ▁the t he",
    "[INST] the [/INST]  an": "<s> [INST] ▁▁ t he ▁ [/INST] ▁▁▁ an",
    "     of": "<s> ▁▁▁▁ ▁▁ of",
    "and, ananan.": "<s> ▁and , ▁an ana n .",
}
PIECES = {
    "▁the ▁world": " the| world",
    "▁the ▁ ▁world": " the| | world",
    "<s> ▁Paris": "| Paris",
    "▁the▁": " the ",
    "<0xE6> <0x97> <0xA5> a": "||日|a",
    "<0xE6> <0x97> a": "||\ufffda",
    "<0xE6> ▁the <0x41>": "|\ufffd the|A",
    "[INST] ▁the </s> ▁Paris <unk> ▁is": "[INST]| the|| Paris|| is",
    "<0x20> a": " |a",
    "<0xFF> <0xFE> <0x41> ris": "\ufffd|\ufffd|A|ris",
    "▁▁▁▁ of": "    |of",
}
"""What each token adds. The bytes are llama.cpp's; where they are not UTF-8, U+FFFD stands for each beginning of a character."""


def tokenizer(**more: Any) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return load_tokenizer(GgufTokenizer(str(write_sentencepiece(Path(folder) / "small.gguf", **more))))


@lru_cache
def usual() -> Tokenizer:
    return tokenizer()


@lru_cache
def bare() -> Tokenizer:
    return tokenizer(space=False, tokenizer__ggml__add_bos_token=False)


@lru_cache
def flat() -> Tokenizer:
    return tokenizer(tokenizer__ggml__scores=[-1000.0] * len(TOKENS))


def ids(pieces: str) -> list[int]:
    return [TOKENS.index(piece) for piece in pieces.split()]


# what llama.cpp makes of it


@pytest.mark.parametrize("text", USUAL)
def test_texts_have_the_tokens_of_llama_cpp(text: str) -> None:
    found = [TOKENS[i] for i in usual().encode(text)]
    assert found == USUAL[text].split()
    assert usual().encode(text, bos=False) == usual().encode(text)[1:]


@pytest.mark.parametrize("text", BARE)
def test_without_a_space_before_the_text_and_without_bos(text: str) -> None:
    assert [TOKENS[i] for i in bare().encode(text)] == BARE[text].split()


@pytest.mark.parametrize("text", FLAT)
def test_of_equal_scores_the_leftmost_is_joined_first(text: str) -> None:
    """As in files made from a `tokenizer.json`, which knows no scores."""
    assert [TOKENS[i] for i in flat().encode(text)] == FLAT[text].split()


@pytest.mark.parametrize("pieces", PIECES)
def test_each_token_adds_its_bytes(pieces: str) -> None:
    """A character comes with its last byte; the space before a word is shown, as the text goes on from a prompt."""
    stream = usual().stream()
    assert [stream.add(i) for i in ids(pieces)] == PIECES[pieces].split("|")
    assert (stream.end(), stream.end()) == ("", "")


@pytest.mark.parametrize(
    "text,pieces",
    [
        ("the world wo", "<s> ▁the ▁w orld ▁▁ wo"),
        ("worldwo world", "<s> ▁w orld wo ▁▁ w orld"),
        ("wo orld", "<s> wo ▁▁ orld"),
    ],
)
def test_of_special_tokens_that_overlap_the_longest_is_itself(text: str, pieces: str) -> None:
    names = {"[INST]": "wo", "[/INST]": "orld"}
    made = [names.get(token, token) for token in TOKENS]
    assert [made[i] for i in tokenizer(tokenizer__ggml__tokens=made).encode(text)] == pieces.split()


# what holds for every text


@settings(max_examples=400, deadline=None)
@given(PLAIN)
def test_no_text_is_lost(text: str) -> None:
    for kind in (usual(), bare(), flat()):
        assert kind.decode(kind.encode(text)) == text


@settings(max_examples=400, deadline=None)
@given(PLAIN, st.integers(2, 30))
def test_a_stream_goes_on_where_the_prompt_ends(text: str, cut: int) -> None:
    """Shown after the prompt, streamed text makes the text that all tokens together make."""
    tokens = usual().encode(text)
    prompt, stream = usual().decode(tokens[:cut]), usual().stream()
    assume(prompt and "\ufffd" not in prompt)  # it does not end within a character
    shown = "".join([*map(stream.add, tokens[cut:]), stream.end()])
    assert prompt + shown == text


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(-1, len(TOKENS) + 2), max_size=20))
def test_any_tokens_decode_to_the_text_that_a_stream_shows(tokens: list[int]) -> None:
    """Also tokens that the vocabulary does not have: an embedding may have more rows."""
    stream = usual().stream()
    shown = "".join([*map(stream.add, tokens), stream.end()])
    assert usual().decode(tokens) == shown.removeprefix(" ")


@settings(max_examples=400, deadline=None)
@given(st.text("ban \n", max_size=60))
def test_what_is_joined_follows_from_scores_alone(text: str) -> None:
    """The definition, written out: scan all neighbours, join the best and leftmost, until none can be joined."""
    scores = dict(zip(TOKENS, sentencepiece()["tokenizer.ggml.scores"], strict=True))
    parts = list("\u2581" + text.replace(" ", "\u2581")) if text else []
    while pairs := [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]:
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    assert [TOKENS[i] for i in usual().encode(text, bos=False)] == [p if p != "\n" else "<0x0A>" for p in parts]


def test_an_unfinished_character_shows_at_the_end() -> None:
    stream = usual().stream()
    assert [stream.add(i) for i in ids("a <0xF0> <0x9F>")] == ["a", "", ""]
    assert (stream.end(), stream.end()) == ("\ufffd", "")


@pytest.mark.timeout(30)
def test_a_long_text_takes_no_long_time() -> None:
    """40,000 tokens; a merge that looked at all neighbours each time would take hours."""
    text = "the world is in Paris, and the banana is not. " * 2000
    assert usual().decode(usual().encode(text)) == text


# tokens that a vocabulary lacks


def test_characters_without_tokens_or_bytes_are_one_unknown_token() -> None:
    """As SentencePiece has it. (llama.cpp ends with an exception.)"""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", "a", "b"]
    lacking = SentencePiece(pieces, [0.0] * 6, [2, 3, 3, 1, 1, 1], unknown=0, bos=1, space=True)
    assert lacking.encode("a龍😀b é") == [1, 3, 4, 0, 5, 3, 0]
    assert lacking.decode([1, 3, 4, 0, 5]) == "ab"
    dropping = SentencePiece(pieces, [0.0] * 6, [2, 3, 3, 1, 1, 1], unknown=None, bos=None, space=False)
    assert dropping.encode("a龍b") == [4, 5]


def test_a_file_that_names_no_special_tokens_has_the_usual_ones(tmp_path: Path) -> None:
    none = {f"tokenizer__ggml__{key}_token_id": None for key in ("bos", "eos", "unknown")}
    model = unitp.load(write_sentencepiece(tmp_path / "small.gguf", **none))
    assert model.decoder is not None
    assert (model.decoder.stop_ids, model.decoder.bos_token, model.decoder.eos_token) == ((2,), "<s>", "</s>")
    assert model.tokenizer.encode("the") == ids("<s> ▁the")
    assert model.tokenizer.token_id("</s>") == 2
    assert model.tokenizer.token_id("no such token") is None


# what is refused


@pytest.mark.parametrize(
    "more,words",
    [
        ({"scores": None}, ["tokenizer.ggml.scores is None"]),
        ({"scores": [0.0]}, [f"{len(TOKENS)} tokens have 1 entries in tokenizer.ggml.scores"]),
        ({"scores": [float("nan")] * len(TOKENS)}, ["tokenizer.ggml.scores is [nan"]),
        ({"scores": ["best"]}, ["tokenizer.ggml.scores is ['best']"]),
        ({"token_type": [1, 1]}, ["2 entries in tokenizer.ggml.token_type"]),
        ({"token_type": [6] * len(TOKENS)}, ["corrupt", "byte"]),
        ({"tokens": ["a", *TOKENS[1:]]}, ["corrupt", "twice"]),
        ({"bos_token_id": 9999}, ["bos_token_id is 9999"]),
        ({"bos_token_id": [1, 2]}, ["bos_token_id is [1, 2]"]),
        ({"add_bos_token": "yes"}, ["add_bos_token is 'yes'"]),
        ({"add_space_prefix": 1}, ["add_space_prefix is 1"]),
        ({"add_eos_token": True}, ["add_eos_token is True", "does not implement"]),
        ({"remove_extra_whitespaces": True}, ["remove_extra_whitespaces is True", "does not implement"]),
        ({"precompiled_charsmap": [1, 2]}, ["precompiled_charsmap is [1, 2]", "does not implement"]),
    ],
)
def test_what_a_tokenizer_cannot_be_is_named(more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        tokenizer(**{f"tokenizer__ggml__{key}": value for key, value in more.items()})
    for word in ("small.gguf", *words):
        assert word in str(caught.value)


@lru_cache
def small_file() -> tuple[bytes, int]:
    """A whole file, and where its weights begin."""
    with TemporaryDirectory() as folder:
        path = write_sentencepiece(Path(folder) / "small.gguf")
        return path.read_bytes(), min(t.offset for t in read_gguf(path).tensors.values())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_give_a_model_error_or_a_tokenizer(tmp_path: Path, data: st.DataObject) -> None:
    """Never another exception, neither when it is made nor when it is used."""
    whole, weights = small_file()
    changed = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, weights - 1), min_size=1, max_size=3)):
        changed[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.gguf"
    path.write_bytes(changed)
    message = ""
    try:
        model = unitp.load(path)
        if model.decoder and model.decoder.tokenizer:
            model.tokenizer.decode(model.tokenizer.encode("the 7 é <s>"))
    except ModelError as error:
        message = str(error)
    assert not message or "flipped" in message
