"""Arrays of strangers' files: right, or refused before memory is asked for."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.errors import InputError
from unitp.frontends.builder import Builder
from unitp.session.array_files import MOST_EXPANDED, read_arrays
from unitp.session.inputs import bind, token_lists, token_rows

ARRAYS = [
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.array(1.5),
    np.zeros((0, 3), np.int32),
    np.array([True, False]),
    np.arange(3, dtype=">f8"),
]


def read(path: Path) -> object:
    return read_arrays(os.fspath(path))


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str} {array.shape}")
def test_an_array_is_what_numpy_wrote(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    found = read(path)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_arrays_by_name(save: object, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, a=ARRAYS[0], b=ARRAYS[2])  # type: ignore[operator]
    found = read(path)
    assert isinstance(found, dict)
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], ARRAYS[0])


def header(text: str, data: bytes = b"") -> bytes:
    raw = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data


def of(shape: str, descr: str = "'<f8'", data: bytes = b"") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "magic"),
        (b"not an array", "magic"),
        (b"\x93NUMPY\x09\x00", "version"),
        (of("(1000000000000,)", data=bytes(8)), r"has 8 bytes for an array of float64 with shape \[1000000000000\]"),
        (of("(-1, -8)", data=bytes(64)), r"shape \[-1, -8\]"),
        (of("(1,)", data=bytes(16)), "has 16 bytes"),
        (of("(1,)", "'|O'", bytes(8)), "Python objects"),
        (of("(1,)", "[('a', '<f8'), ('b', '|O')]", bytes(16)), "Python objects"),
        (of("(" * 500), "cannot read arrays"),
        (header("{'descr': \0}"), "cannot read arrays"),
        (header("['"), "cannot read arrays"),
    ],
)
def test_a_damaged_array_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(InputError, match=why):
        read(path)


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(of(f"({MOST_EXPANDED // 8},)"))
        for _ in range(MOST_EXPANDED >> 20):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="would expand to"):
        read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.arange(1000))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = read(path)
        except InputError:
            continue
        assert isinstance(found, dict)
        for array in found.values():
            np.testing.assert_array_equal(array, np.arange(1000))


def test_an_archive_with_a_long_list_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(25_000):
            archive.writestr(f"{number}", b"")
    with pytest.raises(InputError, match="list of entries is too long"):
        read(path)


def test_numbers_of_another_width_are_taken_or_named() -> None:
    graph = Builder("g")
    x = graph.input("x", "int32", ("n",))
    made = graph.graph(graph.Add(x, x))
    assert bind(made, {"x": np.array([2**31 - 1, -(2**31)])})[0]["x"].tolist() == [2**31 - 1, -(2**31)]
    for numbers in ([2**31], [-(2**31) - 1], np.array([2**64 - 1], np.uint64)):
        with pytest.raises(InputError, match="has numbers beyond int32"):
            bind(made, {"x": numbers})


class Odd:
    """Something that is asked for an array, and raises."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise MemoryError("odd")


@pytest.mark.parametrize(
    "ids", [[[1], 2], [[1, 2], [3]], [1, [2]], [2**64], [[2**64]], Odd(), {"a": 1}, [None], [np.array(1)], object()]
)
def test_what_is_no_token_ids_is_named(ids: Any) -> None:
    for take in (token_lists, token_rows):
        if take is token_lists and ids == [[1, 2], [3]]:
            assert token_lists(ids) == ([[1, 2], [3]], False)
            continue
        with pytest.raises(InputError):
            take(ids)


def test_what_is_no_array_is_named() -> None:
    graph = Builder("g")
    x = graph.input("x", "float32", ("n",))
    with pytest.raises(InputError, match="x is not an array: odd"):
        bind(graph.graph(graph.Add(x, x)), {"x": Odd()})
