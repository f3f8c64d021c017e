"""Turns text into token ids and back, with the tokenizer of a GGUF file or a `tokenizer.json`.

The `tokenizers` package does the work, or `sentencepiece.py` for tokenizers like that of Llama 2. A stream turns tokens into text
as they come, and holds back bytes until they form a character.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from unitp.errors import ModelError
from unitp.files import MOST_JSON, foreign, parse_json, read_bytes, unicode
from unitp.frontends.fields import Fields
from unitp.texts import cut


class GgufTokenizer(msgspec.Struct, frozen=True, tag="gguf"):
    path: str


class JsonTokenizer(msgspec.Struct, frozen=True, tag="json"):
    path: str


class UnknownTokenizer(msgspec.Struct, frozen=True, tag="unknown"):
    """The tokenizer is of a kind that unitp does not know. The model still works on token ids."""

    path: str
    kind: str


TokenizerSource = GgufTokenizer | JsonTokenizer | UnknownTokenizer
KINDS = ("gpt2", "llama")
"""Known kinds of tokenizers (`tokenizer.ggml.model`)."""

_SPLIT_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {"llama3": _SPLIT_LLAMA3, "qwen2": _SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")}
WAYS = {
    "gpt-2": "gpt2", "gpt2": "gpt2",
    "smollm": "digits", "starcoder": "digits", "refact": "digits",
    "llama-bpe": "llama3", "llama3": "llama3", "llama-v3": "llama3",
    "qwen2": "qwen2", "deepseek-r1-qwen": "qwen2",
}  # fmt: skip
"""How text is split before merging, by the value of `tokenizer.ggml.pre` (llama.cpp's `llama-vocab.cpp`)."""

CONTROL, USER_DEFINED = 3, 4
CHARSMAP, _LETTER = "precompiled_charsmap", re.compile(rb"\\u00[4-7]")
"""The key of a table of characters, and a letter of one that is written as an escape."""
MOST_GROWTH = 64.0
"""The most bytes that a tokenizer may make of one; writing "▁" for a space makes three."""


class TokenStream(Protocol):
    """Gives the text that each further token adds, and at the end the text that was held back."""

    def add(self, token: int) -> str: ...
    def end(self) -> str: ...


class Tokenizer(Protocol):
    """`encode` turns text (with special tokens in it) into ids, `decode` turns ids into text without special tokens.

    With `bos`, `encode` adds the special tokens that the model expects around a prompt: usually none, or one at its beginning.
    `stream` gives the text of tokens that continue a text. It keeps a space at the beginning, which `decode` may drop.
    """

    def encode(self, text: str, *, bos: bool = True) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def token_id(self, token: str) -> int | None: ...
    def stream(self) -> TokenStream: ...


class PackageTokenizer:
    """A tokenizer of the `tokenizers` package, from the file `where`."""

    def __init__(self, tokenizer: Any, where: str) -> None:
        self._tokenizer, self._where = tokenizer, where
        _require_modest(tokenizer, where)

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        with foreign(f"the tokenizer in {self._where} cannot encode a text", ModelError):
            ids: list[int] = self._tokenizer.encode(unicode(text), add_special_tokens=bos).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        with foreign(f"the tokenizer in {self._where} cannot decode tokens", ModelError):
            return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(unicode(token))
        return found

    def to_json(self) -> str:
        """Return the `tokenizer.json` of this tokenizer."""
        return str(self._tokenizer.to_str(pretty=True))

    def stream(self) -> TextStream:
        return TextStream(self)


class TextStream:
    """Gives the text that each further token adds. A character whose bytes are spread over tokens comes with the last of them.

    Some tokenizers drop a space at the beginning of what they decode, so decoding here always begins with the token of a letter.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._letter = tokenizer.encode("a", bos=False)[-1:]
        self._ids: list[int] = []
        self._before = self._shown = 0

    def add(self, token: int) -> str:
        self._ids.append(int(token))
        old, new = self._text(self._shown), self._text(len(self._ids))
        if new.endswith("\ufffd") or len(new) <= len(old):
            return ""
        self._before, self._shown = self._shown, len(self._ids)
        return new[len(old) :]

    def end(self) -> str:
        """Return the text that was held back. An unfinished character becomes a replacement character."""
        old, new = self._text(self._shown), self._text(len(self._ids))
        self._shown = len(self._ids)
        return new[len(old) :]

    def _text(self, stop: int) -> str:
        return self._tokenizer.decode([*self._letter, *self._ids[self._before : stop]])


class IdStreams:
    """Replaces the tokenizer of a model that has none: the text of a token is its number."""

    def stream(self) -> IdStream:
        return IdStream()


class IdStream:
    """Gives the numbers of tokens, separated by spaces."""

    _space = ""

    def add(self, token: int) -> str:
        text, self._space = f"{self._space}{token}", " "
        return text

    def end(self) -> str:
        return ""


def load_tokenizer(source: TokenizerSource) -> Tokenizer:
    """Return the tokenizer of a source. Raises ModelError for a corrupt file or an unknown kind of tokenizer."""
    if isinstance(source, UnknownTokenizer):
        raise ModelError(
            f'{source.path} has tokenizer model "{source.kind}"; known: {", ".join(KINDS)}',
            hint="Give token ids (--prompt-ids).",
        )
    return _from_gguf(source.path) if isinstance(source, GgufTokenizer) else _from_json(source)


def _from_json(source: JsonTokenizer) -> PackageTokenizer:
    from tokenizers import Tokenizer as Fast

    data = read_bytes(source.path, ModelError)
    _require_charsmaps(data, source.path)
    with foreign(f"{source.path} is not a tokenizer", ModelError):
        fast = Fast.from_str(data.decode())
        fast.no_truncation()  # stored beside the tokenizer, but of a training run
        fast.no_padding()
    return PackageTokenizer(fast, source.path)


def _require_charsmaps(data: bytes, where: str) -> None:
    """Raise ModelError for a table of characters that is shorter than its own length says.

    The package allocates as much memory as that length says, and ends the process if there is not enough. Files that cannot
    hold such a table are not read twice.
    """
    if CHARSMAP.encode() not in data and not _LETTER.search(data):
        return
    if len(data) > MOST_JSON:
        raise ModelError(f"{where} has {len(data)} bytes and a {CHARSMAP}; at most {MOST_JSON} are read of such a file")
    left: list[Any] = [parse_json(data, where, ModelError)]
    while left:
        part = left.pop()
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if not isinstance(part, dict) or not isinstance(text := part.get(CHARSMAP), str):
            continue
        with foreign(f"{where} is not a tokenizer: its {CHARSMAP}", ModelError):
            table = b64decode(text, validate=True)
        if len(table) < 4 or int.from_bytes(table[:4], "little") > len(table) - 4:
            raise ModelError(f"{where} is not a tokenizer: its {CHARSMAP} is truncated")


def _require_modest(tokenizer: Any, where: str) -> None:
    """Raise ModelError for a tokenizer that makes texts much longer.

    Replacements one after the other multiply: twenty that replace "a" by "aa" make a million of it. If memory is short, the
    package ends the process.
    """
    for part in (tokenizer.normalizer, tokenizer.decoder):
        if part is not None and (growth := _growth(parse_json(part.__getstate__(), where, ModelError))) > MOST_GROWTH:
            raise ModelError(f"{where} is not a tokenizer: it makes a text up to {growth:.0f} times as long")


def _growth(part: Any) -> float:
    """Return the most times by which the replacements in a part of a `tokenizer.json` lengthen a text."""
    steps = part.get("normalizers") or part.get("decoders")
    if isinstance(steps, list):
        return math.prod(map(_growth, steps))
    if part.get("type") != "Replace":
        return 1.0
    replaced = part["pattern"].get("String") or " "  # a regular expression may match one character, or none
    return max(1.0, len(part["content"].encode()) / len(replaced.encode()))


def gguf_tokenizer(metadata: Mapping[str, Any], path: str) -> GgufTokenizer | UnknownTokenizer:
    """Return the source of the tokenizer in a GGUF file. Raises ModelError for an unknown way of splitting text.

    With another way of splitting, every prompt would be encoded wrongly. An unknown kind of tokenizer is an error only when text
    is encoded (`load_tokenizer`).
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind not in KINDS:
        return UnknownTokenizer(path, cut(str(kind)))
    if kind == "gpt2" and (not isinstance(pre, str) or pre not in WAYS):
        seen = f'tokenizer.ggml.pre "{cut(str(pre))}", which unitp does not know' if pre else "no tokenizer.ggml.pre"
        raise ModelError(f"{path} has {seen}", hint=f"Known: {', '.join(WAYS)}.")
    return GgufTokenizer(path)


def _from_gguf(path: str) -> Tokenizer:
    from unitp.frontends.gguf_file import read_gguf
    from unitp.frontends.sentencepiece import sentencepiece

    given = Fields(read_gguf(path).metadata, path)
    source = gguf_tokenizer(given.values, path)
    if isinstance(source, UnknownTokenizer):
        return load_tokenizer(source)
    return sentencepiece(given) if given.get("tokenizer.ggml.model") == "llama" else _byte_level(given, path)


def _byte_level(given: Fields, path: str) -> PackageTokenizer:
    """Byte-level BPE: the kind "gpt2" of GPT-2, Llama 3 and Qwen."""
    from tokenizers import AddedToken, decoders, models, processors
    from tokenizers import Tokenizer as Fast

    way = WAYS[given.text("tokenizer.ggml.pre")]
    if given.flag("tokenizer.ggml.add_eos_token"):
        raise ModelError(f"{path} has tokenizer.ggml.add_eos_token=True, which unitp does not implement")
    tokens, types = given.texts("tokenizer.ggml.tokens"), given.ids("tokenizer.ggml.token_type")
    merges = [m.partition(" ")[::2] for m in given.texts("tokenizer.ggml.merges")]
    with foreign(f"the tokenizer in {path} is corrupt", ModelError):
        fast = Fast(models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=way == "llama3"))
        _pre_tokenize(fast, way)
        fast.decoder = decoders.ByteLevel()
        special = [
            AddedToken(t, special=k == CONTROL, normalized=False)
            for t, k in zip(tokens, types, strict=False)
            if k in (CONTROL, USER_DEFINED)
        ]
        fast.add_special_tokens([t for t in special if t.special])
        fast.add_tokens([t for t in special if not t.special])
    # llama.cpp begins a prompt of Llama 3 with this token even where the file does not say so
    if given.flag("tokenizer.ggml.add_bos_token", way == "llama3"):
        bos = given.ids("tokenizer.ggml.bos_token_id")
        if len(bos) != 1 or not 0 <= bos[0] < len(tokens):
            raise given.wrong(
                "tokenizer.ggml.bos_token_id", f"one of {len(tokens)} tokens, as the prompt begins with it"
            )
        fast.post_processor = processors.TemplateProcessing("bos $A", special_tokens=[("bos", bos[0])])
    return PackageTokenizer(fast, path)


def _pre_tokenize(fast: Any, way: str) -> None:
    """Set how text is split before merging: `way` is a value of `WAYS`."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    level = pre_tokenizers.ByteLevel
    if way == "gpt2":
        fast.pre_tokenizer = level(add_prefix_space=False)
    elif way == "digits":
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
        )
    else:
        cut = pre_tokenizers.Split(Regex(SPLITS[way]), "isolated")
        fast.pre_tokenizer = pre_tokenizers.Sequence([cut, level(add_prefix_space=False, use_regex=False)])
        if way == "qwen2":
            fast.normalizer = normalizers.NFC()
