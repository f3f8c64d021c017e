"""Text to token ids and back, by the `tokenizers` package, from a GGUF file's metadata or a `tokenizer.json`.

`Tokenizer.stream()` turns tokens into text as they come, holding back bytes that do not make a character yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import ModelError


class GgufTokenizer(msgspec.Struct, frozen=True, tag="gguf"):
    path: str


class JsonTokenizer(msgspec.Struct, frozen=True, tag="json"):
    path: str
    add_bos: bool = False


TokenizerSource = GgufTokenizer | JsonTokenizer

_SPLIT_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLIT_QWEN2 = _SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CONTROL, USER_DEFINED = 3, 4


class Tokenizer:
    """`encode` text to ids (special tokens written in the text are recognised), `decode` ids to text without special tokens."""

    def __init__(self, tokenizer: Any, bos_id: int | None = None) -> None:
        self._tokenizer, self._bos = tokenizer, bos_id

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._bos, *ids] if bos and self._bos is not None else ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def to_json(self) -> str:
        """The `tokenizer.json` of this tokenizer."""
        return str(self._tokenizer.to_str(pretty=True))

    def stream(self) -> TextStream:
        return TextStream(self)


class TextStream:
    """The text that each further token adds. A character whose bytes are spread over tokens comes with the last of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._before = self._shown = 0

    def add(self, token: int) -> str:
        self._ids.append(int(token))
        old = self._tokenizer.decode(self._ids[self._before : self._shown])
        new = self._tokenizer.decode(self._ids[self._before :])
        if new.endswith("\ufffd") or len(new) <= len(old):
            return ""
        self._before, self._shown = self._shown, len(self._ids)
        return new[len(old) :]

    def end(self) -> str:
        """What was held back: an unfinished character shows as a replacement character."""
        old = self._tokenizer.decode(self._ids[self._before : self._shown])
        new = self._tokenizer.decode(self._ids[self._before :])
        self._shown = len(self._ids)
        return new[len(old) :]


def load_tokenizer(source: TokenizerSource) -> Tokenizer:
    """Raises ModelError for a corrupt file, or a kind of tokenizer that is not known."""
    return _from_gguf(source.path) if isinstance(source, GgufTokenizer) else _from_json(source)


def _from_json(source: JsonTokenizer) -> Tokenizer:
    from tokenizers import Tokenizer as Fast

    try:
        fast = Fast.from_str(Path(source.path).read_text("utf-8"))
    except Exception as error:  # noqa: BLE001  (the package raises bare Exception for anything it cannot parse)
        raise ModelError(f"{source.path} is no tokenizer: {error}") from None
    bos = None
    if source.add_bos:
        ids = fast.encode("", add_special_tokens=True).ids
        bos = ids[0] if ids else None
    return Tokenizer(fast, bos)


def _from_gguf(path: str) -> Tokenizer:
    from tokenizers import AddedToken, decoders, models
    from tokenizers import Tokenizer as Fast

    from unitp.frontends.gguf import read_gguf

    meta = read_gguf(path).metadata
    if (kind := meta.get("tokenizer.ggml.model")) != "gpt2":
        raise ModelError(f'{path} has tokenizer model "{kind}"; known: gpt2', hint="Give token ids (--prompt-ids).")
    tokens: list[str] = meta.get("tokenizer.ggml.tokens", [])
    merges = [tuple(m.split(" ", 1)) for m in meta.get("tokenizer.ggml.merges", [])]
    pre = str(meta.get("tokenizer.ggml.pre", "default"))
    try:
        model = models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=pre == "llama-bpe")
    except Exception as error:  # noqa: BLE001  (the package raises bare Exception for a vocabulary that contradicts itself)
        raise ModelError(f"the tokenizer in {path} is corrupt: {error}") from None
    fast = Fast(model)
    _pre_tokenize(fast, pre, path)
    fast.decoder = decoders.ByteLevel()
    types = meta.get("tokenizer.ggml.token_type", [])
    special = [
        AddedToken(t, special=k == CONTROL, normalized=False)
        for t, k in zip(tokens, types, strict=False)
        if k in (CONTROL, USER_DEFINED)
    ]
    fast.add_special_tokens([t for t in special if t.special])
    fast.add_tokens([t for t in special if not t.special])
    bos = meta.get("tokenizer.ggml.bos_token_id") if meta.get("tokenizer.ggml.add_bos_token") else None
    return Tokenizer(fast, bos)


def _pre_tokenize(fast: Any, pre: str, path: str) -> None:
    """How text is cut before merging, by the name that GGUF gives it. Raises ModelError for an unknown one."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    level = pre_tokenizers.ByteLevel
    split = {"llama-bpe": _SPLIT_LLAMA3, "llama3": _SPLIT_LLAMA3, "qwen2": _SPLIT_QWEN2}
    if pre in ("gpt-2", "gpt2"):
        fast.pre_tokenizer = level(add_prefix_space=False)
    elif pre in ("smollm", "starcoder", "refact"):
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
        )
    elif pre in split:
        cut = pre_tokenizers.Split(Regex(split[pre]), "isolated")
        fast.pre_tokenizer = pre_tokenizers.Sequence([cut, level(add_prefix_space=False, use_regex=False)])
        if pre == "qwen2":
            fast.normalizer = normalizers.NFC()
    else:
        raise ModelError(
            f'{path} has tokenizer.ggml.pre "{pre}", which unitp does not know', hint="Give token ids (--prompt-ids)."
        )
