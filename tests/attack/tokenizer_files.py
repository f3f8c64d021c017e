"""Files `tokenizer.json` as a stranger writes them.

One that is changed without harm has to give the same tokens; of others that are taken, streams and ids have to be texts and
numbers.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hostile import NAMES
from mutations import changed, damaged, dump, name, odd

from unitp.errors import InputError
from unitp.frontends.tokenizer import JsonTokenizer, load_tokenizer

NAME = "tokenizers"
TEXT = "abab the banana aaaaaaaaaaaaaaaaaaaaaaaaaaaab 7 é <s>"


@dataclass(frozen=True)
class Input:
    """`right`: of which tokenizer it is a change without harm; `text`: to encode beside the usual."""

    data: bytes
    path: Path
    text: str
    right: str = ""

    @property
    def harmless(self) -> bool:
        return bool(self.right) and not any("\ud800" <= c <= "\udfff" for c in self.text)


LETTERS = "abcdefghijklmnopqrstuvwxyzĠ7é<>"
MODELS: dict[str, dict[str, Any]] = {
    "BPE": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {piece: i for i, piece in enumerate((*LETTERS, "ab", "th", "the", "an"))},
        "merges": [["a", "b"], ["t", "h"], ["th", "e"], ["a", "n"]],
    },
    "Unigram": {
        "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *([c, -3.0] for c in LETTERS), ["ab", -1.0], ["the", -2.0]],
        "byte_fallback": False,
    },
    "WordPiece": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {piece: i for i, piece in enumerate(("[UNK]", *LETTERS, "##b", "##ab", "the", "ba", "##na"))},
    },
    "WordLevel": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "the": 1, "banana": 2}},
}  # fmt: skip
SPECIAL = {
    "id": 90,
    "content": "<s>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


REGEXES = (
    *(r"\s+", "(a+)+$", "(a*)*b", "(?:a|a)*c", "", "(", "[", r"\p{L}+", "(?=a)", "a{1,99999}", "(?<n>a)\\g<n>"),
    *NAMES.values(),
)


def pattern(rng: random.Random) -> dict[str, str]:
    return rng.choice(
        (
            {"String": rng.choice((" ", "a", "", "ab", name(rng)))},
            {"Regex": rng.choice(REGEXES)},
        )
    )  # fmt: skip


def normalizer(rng: random.Random, depth: int = 0) -> Any:
    replace = {
        "type": "Replace",
        "pattern": pattern(rng),
        "content": rng.choice(("", "x", "aa", "a" * 50, "a" * 99_999, name(rng))),
    }
    plain = [
        *({"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "ByteLevel")),
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": rng.choice(("", "▁", "x" * 9999))},
        {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        {
            "type": "Precompiled",
            "precompiled_charsmap": rng.choice(("", "AAAA", "/////w==", "BAAAAAAAAAA=", "x", "ALQCAACEAAAA")),
        },
        replace,
        {"type": "Sequence", "normalizers": [replace] * rng.choice((0, 2, 20, 64))},
    ]
    if depth < 2 and rng.random() < 0.2:
        return {"type": "Sequence", "normalizers": [normalizer(rng, depth + 1) for _ in range(rng.randrange(5))]}
    return rng.choice(plain)


def pre_tokenizer(rng: random.Random) -> Any:
    behavior = rng.choice(("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"))
    return rng.choice(
        (
            {"type": "Whitespace"},
            {"type": "Split", "pattern": pattern(rng), "behavior": behavior, "invert": rng.random() < 0.5},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            {"type": "Metaspace", "replacement": rng.choice(("▁", "", "xx")), "prepend_scheme": "always", "split": True},
            {"type": "CharDelimiterSplit", "delimiter": rng.choice(("a", "", "é"))},
            {"type": "Digits", "individual_digits": True},
            {"type": "Punctuation", "behavior": behavior},
            {"type": "FixedLength", "length": rng.choice((0, 1, 5, 2**40))},
            {"type": "UnicodeScripts"},
        )
    )  # fmt: skip


def decoder(rng: random.Random) -> Any:
    replace = {"type": "Replace", "pattern": pattern(rng), "content": rng.choice(("", " ", "a" * 99_999))}
    return rng.choice(
        (
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": rng.choice(("a", "", "é")), "start": rng.choice((0, 1, 2**40)), "stop": rng.choice((0, 1, 2**40))},
            {"type": "WordPiece", "prefix": rng.choice(("##", "")), "cleanup": True},
            {"type": "CTC", "pad_token": rng.choice(("", "a")), "word_delimiter_token": "", "cleanup": True},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "BPEDecoder", "suffix": rng.choice(("", "a"))},
            replace,
            {"type": "Sequence", "decoders": [replace] * rng.choice((0, 2, 20))},
        )
    )  # fmt: skip


def post_processor(rng: random.Random) -> Any:
    number = rng.choice((0, 1, 90, 2**32 - 1, 2**32))
    return rng.choice(
        (
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            {"type": "RobertaProcessing", "sep": ["</s>", number], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": True},
            {"type": "BertProcessing", "sep": ["[SEP]", number], "cls": ["[CLS]", 0]},
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": rng.choice(("<s>", "X")), "type_id": 0}},
                    {"Sequence": {"id": rng.choice("AB"), "type_id": 0}},
                ],
                "pair": [],
                "special_tokens": rng.choice(({}, {"<s>": {"id": "<s>", "ids": [number] * rng.choice((0, 1, 999)), "tokens": ["<s>"]}})),
            },
        )
    )  # fmt: skip


def whole(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", **empty, "added_tokens": [SPECIAL], "model": model, **parts}


@cache
def right(kind: str, path: Path) -> list[int]:
    """The tokens that the text has, as the package itself says."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_str(json.dumps(whole(MODELS[kind]))).encode(TEXT).ids
    return ids


def one(rng: random.Random, folder: Path) -> Input:
    kind, path = rng.choice(list(MODELS)), folder / "tokenizer.json"
    text = rng.choice(("", "a" * 2000, "ab " * 300, name(rng), "".join(chr(rng.randrange(0xD800)) for _ in range(60))))
    what = rng.choices(("harmless", "parts", "model", "changed", "tokens", "bytes"), (15, 30, 20, 17, 10, 8))[0]
    about = whole(MODELS[kind])
    match what:
        case "harmless":
            about |= (
                {"truncation": {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}}
                if rng.random() < 0.5
                else {}
            )
            keys = [key for key in about if key != "version"]
            rng.shuffle(keys)
            text_ = json.dumps(
                {key: about[key] for key in ("version", *keys)},
                indent=rng.choice((None, 2)),
                ensure_ascii=rng.random() < 0.5,
            )
            return Input(text_.encode(), path, text, kind)
        case "parts":
            made = {
                "normalizer": normalizer,
                "pre_tokenizer": pre_tokenizer,
                "decoder": decoder,
                "post_processor": post_processor,
            }
            about |= {part: made[part](rng) for part in made if rng.random() < 0.5}
        case "model":
            about["model"] = changed(rng, MODELS[kind])
        case "changed":
            about = changed(rng, about)
        case "tokens":
            about["added_tokens"] = [changed(rng, SPECIAL) for _ in range(rng.choice((1, 3)))]
            about["padding"] = {
                "strategy": {"Fixed": rng.choice((1, 2**40))}, "direction": "Right", "pad_to_multiple_of": rng.choice((None, 0)),
                "pad_id": 0,
                "pad_type_id": 0, "pad_token": "x",
            } if rng.random() < 0.5 else odd(rng)  # fmt: skip
        case "bytes":
            return Input(damaged(rng, json.dumps(about).encode()), path, text)
    return Input(dump(about).encode(errors="surrogatepass"), path, text)


def feed(given: Input) -> bool:
    """Make the tokenizer and use it. Raises UnitpError where the file or the text is refused."""
    given.path.write_bytes(given.data)
    tokenizer = load_tokenizer(JsonTokenizer(str(given.path)))
    try:
        ids = tokenizer.encode(TEXT)
    except InputError as error:
        raise AssertionError(f"a good text is refused: {error}") from error
    assert all(type(i) is int and 0 <= i < 2**32 for i in ids)
    stream = tokenizer.stream()
    "".join([*(stream.add(i) for i in [*ids[:20], 0, 1, 5]), stream.end()]).encode()
    tokenizer.decode(ids[:100]).encode()
    tokenizer.token_id("<s>")
    if given.right:
        assert ids == right(given.right, given.path)
    tokenizer.encode(given.text)
    return bool(given.right)
