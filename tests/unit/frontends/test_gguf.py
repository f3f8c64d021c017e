"""GGUF files are read as the `gguf` package writes them; whatever is wrong with one is named, and nothing else is ever raised."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unitp
from unitp.errors import ModelError
from unitp.frontends.gguf import load_gguf
from unitp.frontends.gguf_file import read_gguf
from unitp.graph.source import GgufSource
from unitp.graph.weights import read
from unitp.testing.models import SMALL, arrays, metadata, random_weights, write_gguf, write_tensors

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def refused(path: Path, *words: str) -> str:
    """The message with which a file is refused: it names the path and these words."""
    with pytest.raises(ModelError) as caught:
        load_gguf(path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message
    return message


# what is read


def test_metadata_and_tensors_are_what_was_written(tmp_path: Path) -> None:
    weights = arrays(random_weights(SMALL))
    file = read_gguf(write_gguf(tmp_path / "small.gguf"))
    single = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in metadata().items()}
    assert file.metadata == single
    assert set(file.tensors) == set(weights)
    for name, weight in weights.items():
        source = file.tensors[name]
        assert source.shape == weight.shape
        np.testing.assert_array_equal(read(source, [(0, n) for n in source.shape]), weight)


def test_a_model_has_what_generation_needs(tmp_path: Path) -> None:
    model = unitp.load(write_gguf(tmp_path / "small.gguf", tokenizer__ggml__eot_token_id=5))
    assert model.name == "small"
    assert model.decoder is not None
    assert (model.decoder.max_context, model.decoder.vocab) == (64, 262)
    assert model.decoder.stop_ids == (0, 5)
    assert (model.decoder.bos_token, model.decoder.eos_token) == ("<|user|>", "<|end|>")
    assert model.decoder.chat_template.startswith("{% for m in messages %}")


def test_every_type_of_metadata_is_read(tmp_path: Path) -> None:
    from gguf import GGUFValueType as Kind

    numbers = {
        Kind.UINT8: 255, Kind.INT8: -128, Kind.UINT16: 65535, Kind.INT16: -7, Kind.UINT32: 2**32 - 1, Kind.INT32: -(2**31),
        Kind.UINT64: 2**64 - 1, Kind.INT64: -(2**63), Kind.FLOAT32: 0.5, Kind.FLOAT64: 1e-300, Kind.BOOL: True,
    }  # fmt: skip
    writer = gguf.GGUFWriter(tmp_path / "kinds.gguf", "llama")
    for kind, value in numbers.items():
        writer.add_key_value(f"one.{kind.name}", value, kind)
        writer.add_key_value(f"many.{kind.name}", [value, value], Kind.ARRAY, kind)
    writer.add_key_value("text", "é\n", Kind.STRING)
    writer.add_key_value("texts", ["a", "", "né"], Kind.ARRAY, Kind.STRING)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "kinds.gguf").metadata
    for kind, value in numbers.items():
        assert found[f"one.{kind.name}"] == value
        assert found[f"many.{kind.name}"] == [value, value]
    assert (found["text"], found["texts"]) == ("é\n", ["a", "", "né"])


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_tensors_lie_at_multiples_of_the_alignment(tmp_path: Path, alignment: int) -> None:
    weights = {"a": np.arange(3, dtype=np.float32), "b": np.arange(5, dtype=np.float32)}
    about = {"general.architecture": "llama", "general.alignment": alignment}
    file = read_gguf(write_tensors(tmp_path / "x.gguf", about, weights))
    for name, weight in weights.items():
        assert file.tensors[name].offset % alignment == 0
        np.testing.assert_array_equal(read(file.tensors[name], [(0, weight.size)]), weight)


def test_version_2_is_read_and_others_are_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "small.gguf")
    data = path.read_bytes()
    for version in (2, 3):
        path.write_bytes(data[:4] + struct.pack("<I", version) + data[8:])
        assert load_gguf(path).decoder is not None
    for version in (0, 1, 4, 3 << 24):
        path.write_bytes(data[:4] + struct.pack("<I", version) + data[8:])
        refused(path, f"version {version}", "2 and 3")


def test_qwen2_has_biases_and_pairs_in_halves(tmp_path: Path) -> None:
    config = msgspec.structs.replace(SMALL, qkv_bias=True)
    model = load_gguf(write_gguf(tmp_path / "q.gguf", config, architecture="qwen2"))
    assert "blk.0.attn_v.bias" in {p.name for p in model.graph.parameters}
    rotary = {node.attrs["interleaved"] for node in model.graph.nodes if node.op == "RotaryEmbedding"}
    assert rotary == {0}


def test_all_biases_that_a_llama_file_has_are_used(tmp_path: Path) -> None:
    config = msgspec.structs.replace(SMALL, qkv_bias=True, output_bias=True, mlp_bias=True)
    model = load_gguf(write_gguf(tmp_path / "b.gguf", config))
    biases = {p.name for p in model.graph.parameters if p.name.endswith(".bias")}
    assert len(biases) == 7


def test_rotary_factors_and_linear_scaling_divide_the_frequencies(tmp_path: Path) -> None:
    weights: dict[str, Any] = dict(arrays(random_weights(SMALL)))
    weights["rope_freqs.weight"] = np.array([1, 2, 4, 8], np.float32)
    linear = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 3.0}

    def divisors(about: dict[str, Any], tensors: dict[str, Any]) -> tuple[float, ...]:
        graph = load_gguf(write_gguf(tmp_path / "r.gguf", SMALL, tensors, **about)).graph
        return graph.parameter("rope_cos").source.divisors  # type: ignore[union-attr]

    assert divisors({}, weights) == (1, 2, 4, 8)
    assert divisors(linear, weights) == (3, 6, 12, 24)
    del weights["rope_freqs.weight"]
    assert divisors(linear, weights) == (3, 3, 3, 3)
    assert divisors({}, weights) == ()


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    for window, context in ((16, 16), (0, 64), (1000, 64)):
        model = load_gguf(write_gguf(tmp_path / "w.gguf", llama__attention__sliding_window=window))
        assert model.decoder is not None
        assert model.decoder.max_context == context


# what is refused


@pytest.mark.parametrize(
    "more,words",
    [
        ({"general__type": "adapter"}, ["general.type='adapter'"]),
        ({"split__count": 3}, ["split.count=3"]),
        ({"llama__expert_count": 8, "llama__logit_scale": 2.0}, ["llama.expert_count=8", "llama.logit_scale=2.0"]),
        ({"llama__attention__clamp_kqv": 8.0}, ["llama.attention.clamp_kqv"]),
        ({"llama__rope__scaling__type": "yarn"}, ['"yarn"']),
        ({"llama__rope__scaling__type": "linear"}, ["llama.rope.scaling.factor is missing"]),
        ({"llama__rope__dimension_count": 4}, ["llama.rope.dimension_count is 4", "8"]),
        ({"llama__attention__value_length": 4}, ["llama.attention.value_length is 4"]),
        ({"llama__attention__head_count_kv": 3}, ["4 query heads over 3 KV heads"]),
        ({"llama__attention__head_count_kv": [2, 2]}, ["head_count_kv is [2, 2]"]),
        ({"llama__attention__head_count": 0}, ["head_count is 0"]),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, ["epsilon is nan"]),
        ({"llama__rope__freq_base": 0.0}, ["freq_base is 0.0"]),
        ({"llama__embedding_length": "wide"}, ["embedding_length is 'wide'"]),
        ({"llama__block_count": 2}, ['"blk.1.attn_norm.weight" is missing', '"blk.1.attn_q.weight" is missing']),
        ({"llama__block_count": 2**23 - 1}, ['"blk.1.attn_norm.weight" is missing']),
        ({"llama__feed_forward_length": 40}, ['"blk.0.ffn_gate.weight" has shape [48, 32] but must have [40, 32]']),
        ({"llama__vocab_size": 300}, ['"token_embd.weight" has shape [262, 32] but must have [300, 32]']),
        ({"tokenizer__ggml__pre": "smollx"}, ['tokenizer.ggml.pre "smollx"', "smollm"]),
        ({"tokenizer__ggml__pre": None}, ["no tokenizer.ggml.pre"]),
        ({"tokenizer__ggml__tokens": ["x"] * 263}, ["263 tokens", "262 rows"]),
        ({"tokenizer__ggml__tokens": 7}, ["tokenizer.ggml.tokens is 7"]),
        ({"tokenizer__ggml__eos_token_id": "end"}, ["eos_token_id is 'end'"]),
        ({"tokenizer__chat_template": [1]}, ["chat_template is [1]"]),
    ],
)
def test_what_is_not_implemented_or_impossible_is_named(tmp_path: Path, more: dict[str, Any], words: list[str]) -> None:
    refused(write_gguf(tmp_path / "bad.gguf", **more), *words)


@pytest.mark.parametrize(
    "key", ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
            "attention.layer_norm_rms_epsilon"],
)  # fmt: skip
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    gone: dict[str, Any] = {f"llama__{key.replace('.', '__')}": None}
    refused(write_gguf(tmp_path / "bad.gguf", **gone), f"llama.{key} is missing")


def test_an_unknown_architecture_is_named_with_the_known(tmp_path: Path) -> None:
    refused(write_gguf(tmp_path / "bad.gguf", architecture="mamba"), '"mamba"', "llama", "qwen2")


def test_a_tensor_that_nothing_uses_is_named(tmp_path: Path) -> None:
    weights = arrays(random_weights(SMALL)) | {"blk.0.attn_sinks.weight": np.zeros(4, np.float32)}
    refused(write_gguf(tmp_path / "bad.gguf", SMALL, weights), '"blk.0.attn_sinks.weight" is used by nothing')


def test_biases_of_some_layers_only_are_named(tmp_path: Path) -> None:
    config = msgspec.structs.replace(SMALL, layers=2)
    weights = arrays(random_weights(config)) | {"blk.1.attn_q.bias": np.zeros(32, np.float32)}
    path = write_gguf(tmp_path / "bad.gguf", config, weights)
    refused(path, '"blk.1.attn_q.bias" is used by nothing')


def test_wrong_rotary_factors_are_named(tmp_path: Path) -> None:
    weights = arrays(random_weights(SMALL))
    for factors, word in (([1.0] * 3, "[3] but must have [4]"), ([1.0, 0.0, 1.0, 1.0], "not numbers above 0")):
        tensors = weights | {"rope_freqs.weight": np.array(factors, np.float32)}
        refused(write_gguf(tmp_path / "bad.gguf", SMALL, tensors), "rope_freqs.weight", word)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.gguf", "No such file")
    refused(tmp_path, "it is a folder")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"no front end reads .*notes\.txt"):
        unitp.load(tmp_path / "notes.txt")


# corrupt bytes


def header(*fields: bytes, tensors: int = 0, entries: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + b"".join(fields)


def string(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "data,words",
    [
        (b"", ["not a GGUF file", "0 bytes"]),
        (b"GG", ["not a GGUF file", "2 bytes"]),
        (b"PK\x03\x04" + b"\0" * 40, ["not a GGUF file", "PK"]),
        (header(entries=2**63), [f"{2**63} keys, at most 65536 are read"]),
        (header(entries=1), ["truncated or corrupt", "ends at 24"]),
        (header(tensors=2**63, entries=0), [f"{2**63} tensors, at most 65536 are read"]),
        (header(string(b"key", 2**64 - 1)), [str(2**64 - 1)]),
        (header(entry(b"key", 9, struct.pack("<IQ", 4, 2**20))), [str(2**22)]),
        (header(entry(b"key", 9, struct.pack("<IQ", 4, 2**60))), [f"arrays of {2**60} items, at most 4194304"]),
        (header(entry(b"key", 9, struct.pack("<IQ", 8, 2**60))), [f"arrays of {2**60} items, at most 4194304"]),
        (header(entry(b"key", 9, struct.pack("<IQ", 9, 1))), ["array of metadata type 9"]),
        (header(entry(b"key", 77, b"")), ["unknown metadata type 77"]),
        (header(string(b"\xff\xfe")), ["not UTF-8", "byte 34"]),
        (header(entry(b"k", 8, string(b"\xc3"))), ["not UTF-8"]),
        (header(entry(b"k", 4, b"1234"), entry(b"k", 4, b"1234"), entries=2), ['"k" is there twice']),
        (header(string(b"t"), struct.pack("<I", 5), tensors=1, entries=0), ['"t" has 5 dims']),
    ],
)  # fmt: skip
def test_a_corrupt_header_is_described(tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    refused(path, *words)


def one_tensor(
    kind: int = 0, shape: tuple[int, ...] = (4,), at: int = 0, alignment: Any = None, copies: int = 1
) -> bytes:
    info = string(b"t") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)
    fields = [] if alignment is None else [entry(b"general.alignment", *alignment)]
    data = header(*fields, *[info] * copies, tensors=copies, entries=len(fields))
    return data + b"\0" * 4096


@pytest.mark.parametrize(
    "data,words",
    [
        (one_tensor(kind=99), ['"t" has type 99']),
        (one_tensor(kind=28), ['"t" has type F64']),
        (one_tensor(kind=24), ['"t" has type I8']),
        (one_tensor(kind=3, shape=(33,)), ["blocks of 32"]),
        (one_tensor(shape=(2**40,)), ["truncated", '"t" ends at byte']),
        (one_tensor(at=2**63), ["truncated", '"t" ends at byte']),
        (one_tensor(at=32), ['"t" leaves bytes that are nobody\'s after the header']),
        (one_tensor(), ["its tensors end at byte", "the file at"]),
        (one_tensor(shape=(2**32, 2**32, 0)), ["no array is so large"]),
        (one_tensor(kind=2, shape=()), ["blocks of 32"]),
        (
            one_tensor(alignment=(10, struct.pack("<Q", 32))),
            ["general.alignment is 32 but must be a power of two (UINT32)"],
        ),
        (one_tensor(at=4), ["not a multiple of 32"]),
        (one_tensor(copies=2), ['"t" is there twice']),
        (one_tensor(alignment=(4, struct.pack("<I", 0))), ["general.alignment is 0"]),
        (one_tensor(alignment=(4, struct.pack("<I", 48))), ["general.alignment is 48"]),
        (one_tensor(alignment=(8, string(b"x"))), ["general.alignment is 'x'"]),
    ],
)
def test_a_corrupt_tensor_is_described(tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    refused(path, *words)


def tensors(*places: tuple[int, int]) -> bytes:
    """Tensors of so many float32 numbers at these places, and data for all of them."""
    infos = [string(f"t{i}".encode()) + struct.pack("<IQIQ", 1, n, 0, at) for i, (at, n) in enumerate(places)]
    data = header(*infos, tensors=len(places), entries=0)
    end = max(at + 4 * n for at, n in places)
    return data + bytes(-len(data) % 32) + bytes(end + -end % 32)


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (((0, 8), (32, 9), (96, 1)), ""),
        (((0, 16), (32, 8)), '"t1" overlaps tensor "t0"'),
        (((0, 8), (0, 8)), '"t1" overlaps tensor "t0"'),
        (((0, 8), (64, 8)), """"t1" leaves bytes that are nobody's after tensor "t0\""""),
        (((32, 8), (0, 8)), """"t0" leaves bytes that are nobody's after the header"""),
    ],
)
def test_tensors_follow_each_other(places: tuple[tuple[int, int], ...], why: str, tmp_path: Path) -> None:
    """In the order of their entries, as llama.cpp wants it."""
    path = tmp_path / "t.gguf"
    path.write_bytes(tensors(*places))
    if why:
        refused(path, why)
        return
    assert [read(t, [(0, t.shape[0])]).shape for t in read_gguf(path).tensors.values()] == [(n,) for _, n in places]
    path.write_bytes(path.read_bytes()[: -32 + 4])  # the last one need not be padded
    assert len(read_gguf(path).tensors) == len(places)
    path.write_bytes(tensors(*places) + b"x")
    refused(path, "its tensors end at byte")


def test_a_header_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "small.gguf")
    assert load_gguf(path)
    for name, most, words in (
        ("BYTES", 4000, "a header of more than 4000 bytes"),
        ("ITEMS", 500, "items, at most 500"),
        ("ENTRIES", 5, "at most 5 are"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"unitp.frontends.gguf_file.MOST_{name}", most)
            refused(path, words)


@lru_cache
def small_bytes() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_gguf(Path(folder) / "small.gguf").read_bytes()


@lru_cache
def header_bytes() -> int:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return min(t.offset for t in read_gguf(write_gguf(Path(folder) / "small.gguf")).tensors.values())


def test_a_header_truncated_at_any_byte_is_refused(tmp_path: Path) -> None:
    few: dict[str, Any] = {"tokenizer__ggml__tokens": ["a", "b"], "tokenizer__ggml__token_type": [1, 1]}
    path = write_gguf(tmp_path / "short.gguf", **few)
    data, end = path.read_bytes(), min(t.offset for t in read_gguf(path).tensors.values())
    for size in range(end):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match=r"short\.gguf"):
            load_gguf(path)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_data_truncated_at_any_byte_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(small_bytes()[: data.draw(st.integers(0, len(small_bytes()) - 1))])
    with pytest.raises(ModelError, match=r"short\.gguf"):
        load_gguf(path)


@settings(max_examples=800, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_flipped_bytes_give_a_model_error_or_a_model(tmp_path: Path, data: st.DataObject) -> None:
    """Never another exception: not when the file is read, nor when its tokenizer is made and used."""
    changed = bytearray(small_bytes())
    for at in data.draw(st.lists(st.integers(0, header_bytes() - 1), min_size=1, max_size=3)):
        changed[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.gguf"
    path.write_bytes(changed)
    message = ""
    try:
        model = load_gguf(path)
        if model.decoder and model.decoder.tokenizer:
            model.tokenizer.decode(model.tokenizer.encode("the 7 é"))
    except ModelError as error:
        message = str(error)
    assert not message or "flipped" in message


# weights, slice by slice


KINDS = [k for k in GGMLQuantizationType if k.name[0] in "QBFTMI" and k.name not in ("F64", "I8", "I16", "I32", "I64")]


def stored(kind: GGMLQuantizationType, rows: int, blocks: int, seed: int) -> np.ndarray:
    """Rows of random numbers in this type; where the package cannot quantise, random bytes."""
    random = np.random.default_rng(seed)
    block, size = GGML_QUANT_SIZES[kind]
    try:
        return gguf.quantize(random.standard_normal((rows, blocks * block)).astype(np.float32), kind)
    except NotImplementedError:
        return random.integers(0, 256, (rows, blocks * size), np.uint8)


def readable(kind: GGMLQuantizationType) -> bool:
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


READABLE = [k for k in KINDS if readable(k)]


def test_the_usual_types_are_among_them() -> None:
    usual = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS"
    assert set(usual.split()) <= {kind.name for kind in READABLE}


NO_NUMBERS = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
"""Random bytes as scales can be anything."""


@NO_NUMBERS
@pytest.mark.parametrize("kind", READABLE, ids=lambda k: k.name)
def test_slices_are_cuts_of_the_whole(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    block, _ = GGML_QUANT_SIZES[kind]
    rows, blocks = 6, max(3, 64 // block)
    raw = stored(kind, rows, blocks, seed=int(kind))
    path = tmp_path / "weights"
    path.write_bytes(b"\0" * 13 + raw.tobytes())
    source = GgufSource(str(path), 13, int(kind), (rows, blocks * block))
    whole = np.asarray(dequantize(np.ascontiguousarray(raw).view(np.uint8), kind), np.float32).reshape(source.shape)

    @settings(max_examples=40, deadline=None)
    @given(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted).map(tuple) for n in source.shape))
    def check(down: Any, across: Any) -> None:
        found = read(source, [down, across])
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, whole[slice(*down), slice(*across)])

    check()


@NO_NUMBERS
@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K", "F16"])
def test_large_tensors_are_read_in_chunks(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = GGMLQuantizationType[kind]
    block, _ = GGML_QUANT_SIZES[known]
    source_shape = (37, 512)
    raw = stored(known, 37, 512 // block, 3)
    (tmp_path / "weights").write_bytes(raw.tobytes())
    source = GgufSource(str(tmp_path / "weights"), 0, int(known), source_shape)
    whole = read(source, [(0, 37), (0, 512)])
    monkeypatch.setattr("unitp.graph.weights.CHUNK_BYTES", 4 * 512 * 5)
    np.testing.assert_array_equal(read(source, [(2, 36), (100, 301)]), whole[2:36, 100:301])


def test_a_file_that_has_become_shorter_is_noticed_by_its_reader(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "small.gguf")
    source = read_gguf(path).tensors["blk.0.ffn_down.weight"]
    path.write_bytes(path.read_bytes()[: source.offset + 100])
    with pytest.raises(ModelError, match=r"small\.gguf is truncated"):
        read(source, [(0, 32), (0, 32)])
