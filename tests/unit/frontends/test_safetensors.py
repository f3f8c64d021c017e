"""Safetensors files: places and sizes as the `safetensors` package has them; a damaged file is refused, never misread."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from unitp.errors import ModelError
from unitp.frontends.safetensors import read_safetensors
from unitp.graph.weights import NUMBERS, read

TENSORS: dict[str, np.ndarray] = {
    "a": np.arange(35, dtype=np.float32).reshape(5, 7),
    "b": np.arange(11, dtype=np.float16),
    "c": np.arange(24, dtype=np.float64).reshape(2, 3, 4),
    "d": np.array([1, -2, 2**40], np.int64),
    "empty": np.zeros((0, 3), np.float32),
}
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@lru_cache
def data() -> bytes:
    return save(TENSORS, {"format": "pt"})


def test_tensors_are_read_as_they_were_saved(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", {"format": "pt"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        dtype = "int64" if name == "d" else "float32"
        whole = read(found[name], [(0, n) for n in tensor.shape], dtype)
        np.testing.assert_array_equal(whole, tensor.astype(dtype))
        assert found[name].dtype in NUMBERS


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.integers(0, len(data()) - 1))
def test_any_truncation_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(data()[:size])
    with pytest.raises(ModelError, match=r"short\.safetensors is (truncated|corrupt)"):
        read_safetensors(path)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # what became a float64 can be any
@settings(max_examples=500, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.tuples(st.integers(0, 420), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_bytes_are_refused_or_still_a_file(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(data())
    for at, value in changes:
        changed[at] = value
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(changed)
    message = ""
    try:
        for source in read_safetensors(path).values():
            read(source, [(0, n) for n in source.shape], "float64")
    except ModelError as error:
        message = str(error)
    assert not message or "flipped.safetensors" in message


def with_header(header: Any, body: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "raw,words",
    [
        (b"", "truncated or not a safetensors file: it has 0 bytes"),
        (b"\x05\0\0", "truncated or not a safetensors file: it has 3 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "its header 9223372036854775808"),
        (with_header(b"{nope"), "its header is not JSON"),
        (with_header(b"\xff\xff"), "its header is not JSON"),
        (with_header(b"[" * 100_000), "its header is not JSON"),
        (with_header([1]), "its header is not a JSON object"),
        (with_header({"t": 3}), 'tensor "t" is 3'),
        (with_header({"t": {"dtype": "F32"}}), 'tensor "t" is'),
        (with_header(entry("F8_E4M3")), 'tensor "t" has dtype F8_E4M3; known: F32'),
        (with_header(entry(["F32"])), "has dtype"),
        (with_header(entry(shape=[-2])), "has shape"),
        (with_header(entry(shape=[2.0])), "has shape"),
        (with_header(entry(shape=3)), "has shape"),
        (with_header(entry(offsets=[-8, 0])), "has shape"),
        (with_header(entry(offsets=[0, 4])), "for its bytes"),
        (with_header(entry(offsets=[8, 0])), "for its bytes"),
        (with_header(entry(offsets=[0])), "for its bytes"),
        (with_header(entry(offsets=[])), "for its bytes"),
        (with_header(entry(offsets=[8, 16])), "leaves 8 bytes that are nobody's after the header"),
        (with_header(entry(), b"\0" * 9), "corrupt: its tensors end"),
        (with_header({}), "corrupt: its tensors end"),
    ],
)
def test_damage_is_described(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ModelError) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_what_the_package_refuses_is_refused_and_nothing_else(tmp_path: Path) -> None:
    """Three small tensors whose places are drawn: they overlap, leave holes, change order, or fit."""
    from safetensors import SafetensorError, deserialize

    rng, path, seen = random.Random(5), tmp_path / "drawn.safetensors", {True: 0, False: 0}
    for _ in range(400):
        sizes = [rng.choice((0, 1, 2)) for _ in range(3)]
        starts, at = [], 0
        for size in sizes:
            starts.append(at + rng.choice((0, 0, 0, 0, 0, 4, -4)))
            at += 4 * size
        named = list(zip("abc", sizes, starts, strict=True))
        rng.shuffle(named)
        header = {n: {"dtype": "F32", "shape": [k], "data_offsets": [b, b + 4 * k]} for n, k, b in named if b >= 0}
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        data = len(raw).to_bytes(8, "little") + raw + bytes(max(at + rng.choice((0, 0, 0, 4, -4)), 0))
        path.write_bytes(data)
        try:
            deserialize(data)
            theirs = True
        except SafetensorError:
            theirs = False
        try:
            read_safetensors(path)
            ours = True
        except ModelError:
            ours = False
        assert ours == theirs, header
        seen[ours] += 1
    assert min(seen.values()) > 50
