"""Turns text into token ids and back as SentencePiece's BPE does: the tokenizer "llama" of GGUF files (Llama 2, TinyLlama, Mistral).

    a space is written as "▁", and one more stands before each stretch of text between special tokens;
    while two neighbours join to a token: join those whose token has the highest score, the leftmost of equals;
    a character that is not a token becomes the tokens of its bytes

We do not use the `tokenizers` package here. It ranks pairs, and no ranking of pairs means "the leftmost of equals" if scores
are equal (files made from a `tokenizer.json` have one score for all). Its decoder also drops a good byte beside a stray one.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from unitp.errors import ModelError
from unitp.files import unicode
from unitp.frontends.fields import Fields

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"
DEFAULTS = {"bos": (1,), "eos": (2,), "unknown": (0,)}
"""The special tokens of a file that does not name them; llama.cpp has the same."""

REFUSED = ("add_eos_token", "remove_extra_whitespaces", "precompiled_charsmap")
"""Keys that change the tokens of a text, and are refused. llama.cpp reads only the first of them for this kind of tokenizer."""


class SentencePiece:
    """`encode` turns text (with special tokens in it) into ids, `decode` turns ids into text without special tokens."""

    def __init__(
        self, pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int], *, unknown: int | None, bos: int | None,
        space: bool,
    ) -> None:  # fmt: skip
        """Take the tokens of a file. `bos`, if given, begins a prompt; `space`: encode text with a space before it."""
        self._ids = {piece: i for i, piece in enumerate(pieces)}
        self._scores, self._unknown, self._bos, self._space = scores, unknown, bos, space
        self._bytes = [self._ids.get(f"<0x{byte:02X}>") for byte in range(256)]
        self._texts = [_text(piece, kind) for piece, kind in zip(pieces, kinds, strict=True)]
        special = [(p, i) for p, i in self._ids.items() if p and kinds[i] in (UNKNOWN, CONTROL, USER_DEFINED)]
        self._special = sorted(special, key=lambda found: -len(found[0].encode()))

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        ids = [self._bos] if bos and self._bos is not None else []
        for part in self._parts(unicode(text)):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._merged(f"{SPACE * self._space}{part.replace(' ', SPACE)}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        stream = self.stream()
        text = "".join([*map(stream.add, ids), stream.end()])
        return text.removeprefix(" ") if self._space else text

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def stream(self) -> ByteStream:
        return ByteStream(self._texts)

    def _parts(self, text: str) -> list[str | int]:
        """Return the stretches of text between special tokens, and the ids of these tokens. Longer special tokens are tried first."""
        parts: list[str | int] = [text] if text else []
        for piece, token in self._special:
            if piece in text:
                parts = [p for part in parts for p in (_split(part, piece, token) if isinstance(part, str) else [part])]
        return parts

    def _merged(self, text: str) -> list[int]:
        """Return the token ids of text without special tokens.

        The piece that begins at character i ends at `ends[i]`, which is 0 if it was joined to the piece before it.
        """
        size, scores = len(text), self._scores
        ends, before = list(range(1, size + 1)), list(range(-1, size - 1))
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int) -> None:
            """Record that the piece that begins here and its right neighbour could be joined."""
            if left >= 0 and (right := ends[left]) < size:
                token = self._ids.get(text[left : ends[right]])
                if token is not None:
                    heappush(queue, (-scores[token], left, right, ends[right]))

        for left in range(size - 1):
            offer(left)
        while queue:
            _, left, right, end = heappop(queue)
            if ends[left] != right or ends[right] != end:
                continue  # one of the two has been joined with another meanwhile
            ends[left], ends[right] = end, 0
            if end < size:
                before[end] = left
            offer(before[left])
            offer(left)
        return self._tokens(text, ends)

    def _tokens(self, text: str, ends: Sequence[int]) -> list[int]:
        """Return the ids of the pieces. Consecutive unknown characters are one unknown token."""
        ids: list[int] = []
        at, was_known = 0, True
        while at < len(text):
            piece = text[at : ends[at]]
            found = [self._ids[piece]] if piece in self._ids else self._fallback(piece)
            if found:
                ids += found
            elif was_known and self._unknown is not None:
                ids.append(self._unknown)
            at, was_known = ends[at], bool(found)
        return ids

    def _fallback(self, piece: str) -> list[int]:
        """Return the tokens of a character's bytes, or none if a byte has no token."""
        found = [self._bytes[byte] for byte in piece.encode(errors="replace")]
        return [i for i in found if i is not None] if None not in found else []


class ByteStream:
    """Gives the text that each further token adds. A character whose bytes are spread over tokens comes with the last of them."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self._decoder.decode(self._texts[token] if 0 <= token < len(self._texts) else b"")

    def end(self) -> str:
        """Return the text that was held back. An unfinished character becomes a replacement character."""
        return self._decoder.decode(b"", final=True)


def _split(text: str, piece: str, token: int) -> Iterator[str | int]:
    first, *rest = text.split(piece)
    if first:
        yield first
    for part in rest:
        yield token
        if part:
            yield part


def _text(piece: str, kind: int) -> bytes:
    """Return the text that a token adds. Raises ValueError for a byte token that names no byte."""
    if kind == BYTE:
        return bytes([int(piece[3:5], 16)])
    if kind == USER_DEFINED:
        return piece.encode()
    return piece.replace(SPACE, " ").encode() if kind == NORMAL else b""


def sentencepiece(given: Fields) -> SentencePiece:
    """Return the tokenizer in a GGUF file's metadata. Raises ModelError if it is incomplete, corrupt or not implemented."""
    for key in REFUSED:
        if given.get(f"tokenizer.ggml.{key}") not in (None, False, []):
            raise given.wrong(f"tokenizer.ggml.{key}", "absent, as unitp does not implement it")
    pieces, kinds = given.texts("tokenizer.ggml.tokens"), given.ids("tokenizer.ggml.token_type")
    scores = given.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or any(type(s) is not float or not math.isfinite(s) for s in scores):
        raise given.wrong("tokenizer.ggml.scores", "a list of numbers")
    if len(written := [p for p in pieces if p]) != len(set(written)):
        raise ModelError(f"the tokenizer in {given.where} is corrupt: a token is there twice")
    for key, count in (("scores", len(scores)), ("token_type", len(kinds))):
        if count != len(pieces):
            raise ModelError(
                f"{given.where} is corrupt: {len(pieces)} tokens have {count} entries in tokenizer.ggml.{key}"
            )
    bos = _special_id(given, "bos") if given.flag("tokenizer.ggml.add_bos_token", True) else None
    if bos is not None and not 0 <= bos < len(pieces):
        raise given.wrong("tokenizer.ggml.bos_token_id", f"one of {len(pieces)} tokens, as the prompt begins with it")
    unknown = _special_id(given, "unknown")
    try:
        return SentencePiece(
            pieces,
            scores,
            kinds,
            unknown=unknown if 0 <= unknown < len(pieces) else None,
            bos=bos,
            space=given.flag("tokenizer.ggml.add_space_prefix", True),
        )
    except ValueError:
        raise ModelError(f"the tokenizer in {given.where} is corrupt: a token of a byte names none") from None


def _special_id(given: Fields, name: str) -> int:
    """Return the id of "bos" or "unknown", or -1 if there is none."""
    first, *more = given.ids(f"tokenizer.ggml.{name}_token_id") or DEFAULTS[name]
    if more:
        raise given.wrong(f"tokenizer.ggml.{name}_token_id", "one token id")
    return first
