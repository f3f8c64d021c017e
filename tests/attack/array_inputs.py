"""Arrays as a stranger gives them: `.npy` and `.npz` files, and values in memory, for the inputs of a graph and for token ids.

Numbers that a graph can take have to arrive as they are.
"""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mutations import NUMBERS, damaged, name
from numpy.lib import format as npy

from unitp.cli.run import read_inputs
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.session.inputs import bind, token_lists, token_rows
from unitp.testing.models import tiny

NAME = "arrays"


@dataclass(frozen=True)
class Input:
    """`files` by name and `words` of the command line; or a `value` for graph input `x`, or for token ids. `right`: what arrives."""

    files: dict[str, bytes] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    archive: str = ""
    value: Any = None
    right: dict[str, Any] | None = None
    folder: Path = field(default_factory=Path)

    @property
    def harmless(self) -> bool:
        return self.right is not None


@cache
def graph() -> Graph:
    b = Builder("arrays")
    x = b.input("x", "float32", ("n", 4))
    b.input("ids", "int64", ("n",))
    return b.graph(b.Add(x, x))


@cache
def decoder() -> Graph:
    return tiny(layers=1).graph


def one(rng: random.Random, folder: Path) -> Input:
    what = rng.choices(("harmless", "npy", "header", "npz", "words", "memory"), (15, 18, 22, 20, 5, 20))[0]
    match what:
        case "harmless":
            return harmless(rng, folder)
        case "npy":
            return single(damaged(rng, stored(array(rng)), 128), folder)
        case "header":
            return single(header(rng) + bytes(rng.choice((0, 1, 8, 16, 96, 5000))), folder)
        case "npz":
            return Input({"a.npz": archive(rng)}, archive="a.npz", folder=folder)
        case "words":
            words = tuple(
                rng.choice(
                    (
                        "x=x.npy",
                        "x",
                        "=x.npy",
                        "x=",
                        "x=absent",
                        "x=.",
                        "x=/dev/zero",
                        f"{name(rng)}=x.npy",
                        f"x={name(rng)}",
                    )
                )
                for _ in range(rng.choice((1, 2)))
            )
            return Input({"x.npy": stored(array(rng))}, words, folder=folder)
        case _:
            return Input(value=memory(rng), folder=folder)


def array(rng: random.Random) -> Any:
    shape = rng.choice(((3, 4), (3,), (), (0, 4), (1, 4), (2, 3, 4)))
    dtype = rng.choice(("f4", "f8", "f2", "i8", "i4", "u8", "?", "c16", ">f4", "U3", "S2", "M8[s]", "V4", "O"))
    found = np.full(shape, 7).astype(dtype) if dtype != "V4" else np.zeros(shape, dtype)
    return np.asfortranarray(found) if rng.random() < 0.3 else found


def stored(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def single(data: bytes, folder: Path) -> Input:
    return Input({"x.npy": data}, ("x=x.npy",), folder=folder)


def harmless(rng: random.Random, folder: Path) -> Input:
    """Arrays that the graph takes, in a file each, in an archive, or in memory."""
    n = rng.choice((1, 3, 40))
    numbers = np.random.default_rng(rng.getrandbits(32))
    x = numbers.standard_normal((n, 4)).astype(rng.choice(("f4", "f2", ">f4")))
    ids = numbers.integers(-9, 9, n).astype(rng.choice(("i8", "i4", "u1", ">i8")))
    right = {"x": x.astype("f4"), "ids": ids.astype("i8")}
    if rng.random() < 0.5:
        x = np.asfortranarray(x)
    match rng.randrange(3):
        case 0:
            return Input(
                {"x.npy": stored(x), "i.npy": stored(ids)}, ("x=x.npy", "ids=i.npy"), right=right, folder=folder
            )
        case 1:
            method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            data = zipped([("x.npy", stored(x)), ("ids.npy", stored(ids))], method)
            return Input({"a.npz": data}, archive="a.npz", right=right, folder=folder)
        case _:
            return Input(value={"x": rng.choice((x, x.tolist())), "ids": ids.tolist()}, right=right, folder=folder)


def zipped(members: Iterable[tuple[str, bytes]], method: int) -> bytes:
    """An archive as `np.savez` writes it, but without the time of day: a file would differ each time."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as made:
        warnings.simplefilter("ignore")  # of names that are there twice
        for member, data in members:
            about = zipfile.ZipInfo(member)
            about.compress_type = method
            with made.open(about, "w", force_zip64=True) as written:
                written.write(data)
    return file.getvalue()


def header(rng: random.Random) -> bytes:
    """The head of a `.npy` file that says what it likes."""
    number = rng.choice([n for n in NUMBERS if isinstance(n, int)])
    shape = rng.choice(
        (
            "(3, 4)",
            "()",
            "(3,)",
            f"({'9' * rng.choice((3, 20, 5000))},)",
            "(-1,)",
            "(True,)",
            "(1.5,)",
            "('x',)",
            "None",
            f"({number % 10**30}, 4)",
            "(0, 99999999999999999999)",
            "(1," * 40 + ")" * 40,
        )
    )
    descr = rng.choice(
        (
            "'<f4'",
            "'<i8'",
            "'|O'",
            "'<U9'",
            "'V0'",
            "'<f99'",
            "[('a', '<f4'), ('a', '<i8')]",
            "[('a', '<f4', (10000, 10000))]",
            "'<M8[s]'",
            "7",
            "('<f4', (2**3,))",
            repr(name(rng)),
        )
    )
    text = rng.choice(
        (
            f"{{'descr': {descr}, 'fortran_order': {rng.choice(('False', 'True', '7', 'None'))}, 'shape': {shape}, }}",
            "{" * 5000, "(" * 200, "-" * 9000 + "1", "{'descr': '<f4'", "__import__('os').system('x')", "{}", "[]", "'''", "\\", "3L",
            "\0", " " * 70_000, name(rng),
            f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3L, 4L), }}",
        )
    ).encode("latin1", "replace")  # fmt: skip
    version = rng.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (0, 0), (9, 9)))
    size = (
        struct.pack("<H", len(text) % 65536)
        if version == (1, 0)
        else struct.pack("<I", rng.choice((len(text), len(text), 2**32 - 1)))
    )
    return npy.MAGIC_PREFIX + bytes(version) + size + text


def archive(rng: random.Random) -> bytes:
    """An archive with odd members, or one that is damaged."""
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    members = []
    for _ in range(rng.choice((0, 1, 2, 3, 3000 if rng.random() < 0.1 else 2))):
        member = rng.choice(
            (
                "x.npy",
                "ids.npy",
                "x",
                "a/b.npy",
                "x.npy/",
                name(rng).encode(errors="replace").decode().replace("\0", "") or "e",
            )
        )
        members.append((member, rng.choice((stored(array(rng)), header(rng), b"", b"text"))))
    if rng.random() < 0.15:
        members.append(("bomb.npy", stored(np.zeros(1 << 20))))
    data = bomb() if rng.random() < 0.05 else zipped(members, method)
    if rng.random() < 0.5:
        data = damaged(rng, data)
    if rng.random() < 0.2:  # a size in the list of members, or in its end
        at = data.rfind(rng.choice((b"PK\1\2", b"PK\5\6")))
        if at >= 0:
            place = at + rng.choice((4, 8, 10, 12, 16, 20, 24, 28, 30, 32, 42))
            data = (
                data[:place]
                + rng.choice((b"\xff\xff\xff\xff", b"\xff\xff", bytes(4), rng.randbytes(4)))
                + data[place + 4 :]
            )
    return data


@cache
def bomb() -> bytes:
    """An archive of an array of 320 MB."""
    return zipped([("bomb.npy", stored(np.zeros(40 << 20)))], zipfile.ZIP_DEFLATED)


def memory(rng: random.Random) -> Any:
    """A value that somebody may give for an array or for token ids."""
    deep: Any = 1
    for _ in range(rng.choice((3, 40, 900))):
        deep = [deep]
    number = rng.choice(NUMBERS)
    return rng.choice(
        (
            number, [number], [[number] * 4], [[1, 2], [3]], [[1, [2]]], [1, [2]], [[1], 2], [], [[]], [[], [1]], None, "x", b"x",
            {"a": 1}, {1, 2}, deep, [True], [1.5],
            ["1"], [None], [name(rng)], float("nan"), [float("inf")] * 4, object(), [object()], np.array(number, dtype=object),
            np.array([1, "a"], object),
            np.zeros((2, 4), "M8[s]"), np.zeros(3, [("a", "i4")]), np.array(["x"]), np.array([2**64 - 1], "u8"), np.zeros((0, 4)),
            np.zeros((1,) * 30),
            np.ma.masked_array([1, 2], [True, False]), iter([1]), range(5), memoryview(b"1234"), lambda: 1, Odd(ValueError),
            Odd(MemoryError), Odd(RecursionError),
            np.lib.stride_tricks.as_strided(np.zeros(1), (10**9, 4), (0, 0))[:3],
        )
    )  # fmt: skip


class Odd:
    """Something that is asked for an array and raises."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self.kind("odd")


def feed(given: Input) -> bool:
    """Read the files, or take the value, and bind them to the graph. Raises UnitpError where any of it is refused."""
    if given.files:
        for path, data in given.files.items():
            (given.folder / path).write_bytes(data)
        words = tuple(
            w.replace("=", f"={given.folder}/", 1) if w.split("=")[-1] in given.files else w for w in given.words
        )
        found = read_inputs(words, str(given.folder / given.archive) if given.archive else None)
        for array in found.values():
            assert isinstance(array, np.ndarray)
            assert not array.dtype.hasobject
    elif given.right is not None:
        found = given.value
    else:
        found = {"x": given.value, "ids": [1]}
        for take in (token_lists, token_rows):
            feed_tokens(take, given.value)
    arrays, sizes = bind(graph(), found)
    for name_, wanted in graph().inputs.items():
        assert arrays[name_].dtype == wanted.dtype
    assert sizes["n"] == len(arrays["x"])
    if given.right is None:
        return False
    assert all(np.array_equal(arrays[n], given.right[n]) for n in given.right)
    return True


def feed_tokens(take: Any, value: Any) -> None:
    """Token ids are refused, or come as whole numbers."""
    from unitp.errors import InputError

    try:
        found = take(value)
    except InputError:
        return
    rows = found[0] if isinstance(found, tuple) else found
    assert all(type(i) is int for row in rows for i in row)
