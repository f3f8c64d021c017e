"""GGUF files as a stranger writes them.

What is taken has to be taken by the `gguf` package's reader as well; a file that is changed without harm has to give the same
graph, weights and tokens.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mutations import NUMBERS, damaged, name

import unitp
from unitp.errors import InputError
from unitp.frontends.model import Model
from unitp.graph.weights import read, shape_of
from unitp.testing.models import write_gguf, write_sentencepiece

NAME = "gguf"
TEXT = "the banana is in Paris 7 é <|end|> [INST]"
STRING, ARRAY = 8, 9
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Input:
    """`kind` says of which file it is a change, if it is one without harm."""

    data: bytes
    path: Path
    kind: str = ""

    @property
    def harmless(self) -> bool:
        return bool(self.kind)


class Tensor(NamedTuple):
    name: bytes
    shape: tuple[int, ...]
    kind: int
    at: int


class Entry(NamedTuple):
    """`value` is packed."""

    key: bytes
    kind: int
    value: bytes


def packed_text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


class File:
    """The parts of a file; whatever they are, they can be written."""

    def __init__(self, entries: list[Entry], tensors: list[Tensor], data: bytes) -> None:
        self.entries, self.tensors, self.data = entries, tensors, data
        self.version, self.counts, self.alignment = 3, (0, 0), 32

    def copy(self) -> File:
        return File(list(self.entries), list(self.tensors), self.data)

    def packed(self) -> bytes:
        counts = (len(self.tensors) + self.counts[0]) % 2**64, (len(self.entries) + self.counts[1]) % 2**64
        head = b"GGUF" + struct.pack("<IQQ", self.version, *counts)
        head += b"".join(packed_text(e.key) + struct.pack("<I", e.kind) + e.value for e in self.entries)
        for t in self.tensors:
            head += packed_text(t.name) + struct.pack(f"<I{len(t.shape)}QIQ", len(t.shape), *t.shape, t.kind, t.at)
        return head + b"\0" * (-len(head) % self.alignment) + self.data


def parsed(path: Path) -> File:
    """The parts of a file that the `gguf` package can read."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    entries = []
    for field in reader.fields.values():
        if not field.name.startswith("GGUF."):
            kind = int(field.parts[2][0])
            entries.append(Entry(field.name.encode(), kind, b"".join(p.tobytes() for p in field.parts[3:])))
    tensors = [
        Tensor(t.name.encode(), tuple(map(int, t.shape)), int(t.tensor_type), int(t.field.parts[-1][0])) for t in reader.tensors
    ]  # fmt: skip
    return File(entries, tensors, path.read_bytes()[reader.data_offset :])


@cache
def originals(folder: Path) -> dict[str, tuple[File, str, dict[str, Any], list[int]]]:
    """Small files of both kinds of tokenizers: their parts, and what they give."""
    found = {}
    for kind, write in (("bytes", write_gguf), ("pieces", write_sentencepiece)):
        path = write(folder / "original.gguf")
        found[kind] = parsed(path), *given_by(unitp.load(path))
        path.unlink()
    return found


def given_by(model: Model) -> tuple[str, dict[str, Any], list[int]]:
    """The hash of the graph, some numbers of each weight, and the tokens of a text."""
    weights = {}
    for parameter in model.graph.parameters:
        if all(isinstance(n, int) for n in parameter.type.shape):
            part = [(n // 3, min(n, n // 3 + 4)) for n in shape_of(parameter.source)]
            weights[parameter.name] = read(parameter.source, part)
    ids: list[int] = []
    if model.decoder and model.decoder.tokenizer:
        ids = model.tokenizer.encode(TEXT)
        stream = model.speller.stream()
        for token in [*ids, 0, 1, 10**6]:
            stream.add(token)
        stream.end()
        model.tokenizer.decode(ids)
    return model.graph.hash, weights, ids


def one(rng: random.Random, folder: Path) -> Input:
    kind = rng.choice(("bytes", "pieces"))
    file = originals(folder)[kind][0].copy()
    what = rng.choices(
        ("harmless", "bytes", "entries", "tensors", "counts", "tokens", "noise"), (15, 25, 25, 20, 5, 15, 3)
    )[0]
    path = folder / "hostile.gguf"
    match what:
        case "harmless":
            harmless(rng, file)
            return Input(file.packed(), path, kind)
        case "bytes":
            data = file.packed()
            return Input(damaged(rng, data, len(data) - len(file.data)), path)
        case "entries":
            for _ in range(rng.choice((1, 1, 2, 5))):
                entry(rng, file)
        case "tensors":
            for _ in range(rng.choice((1, 1, 2, 5))):
                tensor(rng, file)
        case "counts":
            numbers = (-1, 1, 2**32, 2**63, 2**64 - 2, 10**6)
            file.counts = rng.choice(((rng.choice(numbers), 0), (0, rng.choice(numbers))))
            file.version = rng.choice((3, 3, 2, 1, 4, 0, 3 << 24))
        case "tokens":
            tokens(rng, file)
        case "noise":
            return Input(rng.choice((b"GGUF", b"", b"GGUF\3\0\0\0")) + rng.randbytes(rng.choice((0, 10, 3000))), path)
    return Input(file.packed(), path)


def harmless(rng: random.Random, file: File) -> None:
    """Keys in another order, keys of no bearing, another version, padding at the end that is left out."""
    rng.shuffle(file.entries)
    if rng.random() < 0.5:
        file.entries.insert(
            rng.randrange(len(file.entries)),
            Entry(b"general.note", STRING, packed_text(name(rng).encode(errors="replace"))),
        )
    if rng.random() < 0.3:
        file.version = 2
    if rng.random() < 0.3:
        file.entries.append(Entry(b"general.numbers", ARRAY, struct.pack("<IQ20000B", 0, 20000, *[7] * 20000)))
    if rng.random() < 0.3:
        file.data += bytes(-len(file.data) % 32)


def scalar(rng: random.Random) -> tuple[int, bytes]:
    """A number of some type, as it is packed."""
    while True:
        kind, value = rng.choice(list(CODES)), rng.choice((*NUMBERS, float("nan"), float("inf")))
        try:
            return kind, struct.pack(f"<{CODES[kind]}", value)
        except (struct.error, OverflowError):
            continue


def value(rng: random.Random) -> tuple[int, bytes]:
    """Something that may be the value of a key."""
    match rng.randrange(7):
        case 0 | 1 | 2:
            return scalar(rng)
        case 3:
            return STRING, packed_text(name(rng).encode(errors=rng.choice(("replace", "surrogatepass"))))
        case 4:
            kind, one = scalar(rng)
            count = rng.choice((0, 1, 3, 1000))
            return ARRAY, struct.pack("<IQ", kind, count) + one * count
        case 5:
            count = rng.choice((0, 1, 3, 1000))
            return ARRAY, struct.pack("<IQ", STRING, count) + packed_text(name(rng).encode(errors="replace")) * count
        case _:
            kind = rng.choice((STRING, ARRAY, 4, 13, 77, 2**31))
            return ARRAY, struct.pack("<IQ", kind, rng.choice((0, 1, 2**20, 2**32, 2**61, 2**64 - 1)))


def entry(rng: random.Random, file: File) -> None:
    at = rng.randrange(len(file.entries))
    old = file.entries[at]
    match rng.randrange(6):
        case 0:
            del file.entries[at]
        case 1:
            file.entries.append(old)
        case 2:
            file.entries[at] = Entry(name(rng).encode(errors="surrogatepass"), old.kind, old.value)
        case 3:
            key = rng.choice(
                (
                    b"general.alignment",
                    b"llama.",
                    b"llama.expert_count",
                    b"split.count",
                    b"general.type",
                    name(rng).encode(errors="replace"),
                )
            )
            file.entries.append(Entry(key, *value(rng)))
        case _:
            file.entries[at] = Entry(old.key, *value(rng))


def tensor(rng: random.Random, file: File) -> None:
    at = rng.randrange(len(file.tensors))
    old, other = file.tensors[at], rng.choice(file.tensors)
    number = rng.choice([n % 2**64 for n in NUMBERS if isinstance(n, int)])
    match rng.randrange(12):
        case 0:
            del file.tensors[at]
        case 1:
            file.tensors.append(old)
        case 2:
            file.tensors[at] = old._replace(name=rng.choice((other.name, name(rng).encode(errors="surrogatepass"))))
        case 3:
            file.tensors[at] = old._replace(at=other.at)  # two tensors share their bytes
        case 4:
            file.tensors[at] = old._replace(at=rng.choice((number, old.at + 32, max(0, old.at - 32), old.at + 4)))
        case 5:
            file.tensors[at] = old._replace(kind=rng.choice((*range(42), 2**31, 2**32 - 1)))
        case 6:
            file.tensors[at] = old._replace(shape=(*old.shape[:-1], number))
        case 7:
            file.tensors[at] = old._replace(
                shape=rng.choice(((), (0,), (1,) * 4, (1,) * 5, old.shape[::-1], (2**32, 2**32, 0), (2**62, 4)))
            )
        case 8:
            file.data += rng.randbytes(rng.choice((1, 31, 32, 64, 5000)))
        case 9:
            file.data = file.data[: -rng.choice((1, 32, 1000))]
        case 10:
            file.alignment = rng.choice((1, 16, 64, 4096))
        case _:
            file.tensors[at], file.tensors[-1] = file.tensors[-1], old


def tokens(rng: random.Random, file: File) -> None:
    """A tokenizer that contradicts itself."""
    keys = [i for i, e in enumerate(file.entries) if e.key.startswith(b"tokenizer.")]
    for at in rng.sample(keys, rng.choice((1, 1, 2))):
        old = file.entries[at]
        if old.kind != ARRAY or rng.random() < 0.3:
            file.entries[at] = Entry(old.key, *value(rng))
            continue
        kind, count = struct.unpack("<IQ", old.value[:12])
        if kind == STRING:
            texts = [
                name(rng).encode(errors="replace") if rng.random() < 0.2 else b"a" * rng.randrange(4)
                for _ in range(count)
            ]
            if rng.random() < 0.5:
                texts = texts[: rng.randrange(count + 1)]
            file.entries[at] = Entry(
                old.key, ARRAY, struct.pack("<IQ", STRING, len(texts)) + b"".join(map(packed_text, texts))
            )
        else:
            file.entries[at] = Entry(old.key, ARRAY, old.value[:12] + rng.randbytes(len(old.value) - 12))


def feed(given: Input) -> bool:
    """Load the file, read some of each weight, use its tokenizer. Raises UnitpError where any of it is refused."""
    from gguf import GGUFReader

    given.path.write_bytes(given.data)
    model = unitp.load(given.path)
    GGUFReader(given.path)  # what unitp takes, others take
    try:
        graph, weights, ids = given_by(model)
    except InputError as error:
        raise AssertionError(f"a good text is refused: {error}") from error
    if not given.kind:
        return False
    _, wanted_graph, wanted_weights, wanted_ids = originals(given.path.parent)[given.kind]
    assert ids == wanted_ids
    assert weights.keys() == wanted_weights.keys()
    assert all(np.array_equal(weights[name], wanted_weights[name]) for name in weights)
    assert graph == wanted_graph
    return True
