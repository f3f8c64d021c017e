"""Directories with safetensors, one file or several with an index, as a stranger writes them.

What is taken has to be taken by the `safetensors` package as well; what is changed without harm has to give the same graph and
weights.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mutations import NUMBERS, changed, damaged, dump, name, odd

import unitp
from unitp.graph.weights import read, shape_of
from unitp.testing.models import SMALL, write_huggingface

NAME = "safetensors"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NO_FILES = ("fifo", "folder", "loop", "zeros", "sparse", "socket")


@dataclass(frozen=True)
class Input:
    """Files by name: bytes, or a word for what is not a regular file."""

    files: dict[str, bytes | str]
    folder: Path
    right: bool = False

    @property
    def harmless(self) -> bool:
        return self.right


@dataclass
class File:
    """The header and the data of a safetensors file."""

    header: dict[str, Any]
    data: bytes

    def packed(self, header: str | None = None, length: int | None = None) -> bytes:
        text = (dump(self.header) if header is None else header).encode(errors="surrogatepass")
        return ((len(text) if length is None else length) % 2**64).to_bytes(8, "little") + text + self.data


def parsed(raw: bytes) -> File:
    begin = 8 + int.from_bytes(raw[:8], "little")
    return File(json.loads(raw[8:begin]), raw[begin:])


@cache
def original(folder: Path) -> tuple[bytes, bytes, str, dict[str, Any]]:
    """A small model: its config and weights as files, the hash of its graph, and its weights as arrays."""
    path = write_huggingface(folder / "original", SMALL)
    found = (path / "config.json").read_bytes(), (path / WHOLE).read_bytes(), *given_by(path)
    shutil.rmtree(path)
    return found


def given_by(path: Path) -> tuple[str, dict[str, Any]]:
    graph = unitp.load(path).graph
    fixed = [p for p in graph.parameters if all(isinstance(n, int) for n in p.type.shape)]
    weights = {p.name: read(p.source, [(0, n) for n in shape_of(p.source)]) for p in fixed}
    return graph.hash, weights


def halves(file: File) -> dict[str, File]:
    """A file taken apart, by the names of the parts."""
    names = sorted((n for n in file.header if n != "__metadata__"), key=lambda n: file.header[n]["data_offsets"][0])
    cut = len(names) // 2
    made = {}
    for part, own in zip(PARTS, (names[:cut], names[cut:]), strict=True):
        made[part] = put_together({n: (file.header[n], bytes_of(file, n)) for n in own})
    return made


def bytes_of(file: File, name: str) -> bytes:
    begin, end = file.header[name]["data_offsets"]
    return file.data[begin:end]


def put_together(tensors: dict[str, tuple[dict[str, Any], bytes]]) -> File:
    """A file of tensors in this order."""
    header, data = {}, b""
    for name_, (about, raw) in tensors.items():
        header[name_] = about | {"data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return File(header, data)


def one(rng: random.Random, folder: Path) -> Input:
    config, raw, *_ = original(folder)
    file = parsed(raw)
    what = rng.choices(
        ("harmless", "bytes", "header", "places", "index", "no file", "noise"), (15, 20, 25, 20, 14, 4, 2)
    )[0]
    files: dict[str, bytes | str] = {"config.json": config}
    where = folder / "model"
    match what:
        case "harmless":
            return Input(files | harmless(rng, file), where, right=True)
        case "bytes":
            files[WHOLE] = damaged(rng, raw, len(raw) - len(file.data))
        case "header":
            file.header = changed(rng, file.header)
            files[WHOLE] = file.packed(length=rng.choice((None, None, None, 0, 2, 2**63, 2**64 - 1, 10**9, len(raw))))
        case "places":
            places(rng, file)
            files[WHOLE] = file.packed()
        case "index":
            files |= index(rng, file)
        case "no file":
            files[rng.choice((WHOLE, "config.json", INDEX, "chat_template.jinja", "tokenizer_config.json"))] = (
                rng.choice(NO_FILES)
            )
            files.setdefault(WHOLE, raw)
        case "noise":
            files[WHOLE] = rng.randbytes(rng.choice((0, 7, 8, 9, 2000)))
    return Input(files, where)


def harmless(rng: random.Random, file: File) -> dict[str, bytes | str]:
    """The same tensors in another order, with spaces or words beside them, in one file or two."""
    names = [n for n in file.header if n != "__metadata__"]
    rng.shuffle(names)
    moved = put_together({n: (file.header[n], bytes_of(file, n)) for n in names})
    if rng.random() < 0.4:
        parts = halves(moved)
        places = {n: part for part, own in parts.items() for n in own.header}
        index = json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()
        return {INDEX: index, **{part: own.packed() for part, own in parts.items()}}
    if rng.random() < 0.5:
        moved.header["__metadata__"] = {"format": "pt", "x": name(rng).encode(errors="replace").decode()}
    listed = list(moved.header.items())
    rng.shuffle(listed)
    moved.header = dict(listed)
    return {WHOLE: moved.packed(dump(moved.header) + " " * rng.choice((0, 3, 500)))}


def places(rng: random.Random, file: File) -> None:
    """Tensors that overlap, leave holes, or are not where or what they should be."""
    names = [n for n in file.header if n != "__metadata__"]
    for _ in range(rng.choice((1, 1, 2, 4))):
        one, other = (file.header[n] for n in rng.sample(names, 2))
        number = rng.choice([n for n in NUMBERS if isinstance(n, int) and n < 10**40])
        match rng.randrange(9):
            case 0:
                one["data_offsets"] = list(other["data_offsets"])
            case 1:
                one["data_offsets"][rng.randrange(2)] = number
            case 2:
                one["data_offsets"] = [n + rng.choice((-4, 4, 32)) for n in one["data_offsets"]]
            case 3:
                one["shape"] = rng.choice(
                    ([], [0], [number], [*one["shape"], 0], [2**62, 2**62, 0], one["shape"][::-1], [1] * 40)
                )
            case 4:
                one["dtype"] = rng.choice(("F16", "BF16", "F64", "I64", "F8_E4M3", "", "f32", name(rng)))
            case 5:
                file.data += rng.randbytes(rng.choice((1, 4, 64)))
            case 6:
                file.data = file.data[: -rng.choice((1, 4, 64))]
            case 7:
                file.header[name(rng)] = {
                    "dtype": "F32",
                    "shape": [0],
                    "data_offsets": rng.choice(([0, 0], [4, 4], [len(file.data)] * 2)),
                }
            case _:
                at = rng.randrange(len(file.data))
                file.data = file.data[:at] + bytes(4) + file.data[at:]


def index(rng: random.Random, file: File) -> dict[str, bytes | str]:
    """Two files and an index that may contradict them."""
    parts = halves(file)
    places: dict[str, Any] = {n: part for part, own in parts.items() for n in own.header}
    about: Any = {"metadata": {}, "weight_map": places}
    found: dict[str, bytes | str] = {part: own.packed() for part, own in parts.items()}
    match rng.randrange(5):
        case 0:
            about = changed(rng, about)
        case 1:
            at = rng.choice(list(places))
            places[at] = rng.choice(
                (
                    *PARTS,
                    "../model-00001-of-00002.safetensors",
                    "/etc/passwd",
                    ".",
                    "..",
                    "",
                    INDEX,
                    "config.json",
                    odd(rng),
                    name(rng),
                )
            )
        case 2:
            found[rng.choice(PARTS)] = rng.choice((*NO_FILES, found[PARTS[0]], found[PARTS[1]]))
        case 3:
            found.pop(rng.choice(PARTS))
        case _:
            return found | {INDEX: damaged(rng, dump(about).encode())}
    return found | {INDEX: dump(about).encode(errors="surrogatepass")}


def lay(path: Path, what: bytes | str) -> None:
    """Put a file, or what is none, in its place."""
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what in ("fifo", "folder"):
        (os.mkfifo if what == "fifo" else os.mkdir)(path)
    else:
        path.symlink_to({"loop": path.name, "zeros": "/dev/zero"}[what])


def feed(given: Input) -> bool:
    """Load the directory and all its weights. Raises UnitpError where any of it is refused."""
    from safetensors import safe_open

    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir()
    for file, what in given.files.items():
        lay(given.folder / file, what)
    with np.errstate(over="ignore", invalid="ignore"):
        graph, weights = given_by(given.folder)
    for file in ({WHOLE, *PARTS} if INDEX in given.files else {WHOLE}) & given.files.keys():
        if not (INDEX in given.files and file == WHOLE):
            with safe_open(given.folder / file, "np") as opened:  # what unitp takes, others take
                opened.keys()
    if not given.right:
        return False
    *_, wanted_graph, wanted = original(given.folder.parent)
    assert graph == wanted_graph
    assert weights.keys() == wanted.keys()
    assert all(np.array_equal(weights[n], wanted[n]) for n in wanted)
    return True
