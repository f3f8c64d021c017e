"""Weights of 16 bits: which parameters are stored so, how numbers are rounded, and what is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp.errors import GraphError, InputError, ModelError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.source import FileSource, RandomSource
from unitp.graph.stored import as_planned, rounded, stored, stored_in, widened
from unitp.graph.values import STORED, Parameter, TensorType, held_as, item_bytes
from unitp.graph.weights import read, read_parameter
from unitp.testing.models import tiny

EVERY = np.arange(1 << 16, dtype=np.uint16)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def neighbours(x: float, dtype: str) -> npt.NDArray[np.float64]:
    """All finite numbers of a dtype that are as near to x as any other."""
    numbers = widened(EVERY, dtype)
    finite = np.unique(numbers[np.isfinite(numbers)]).astype(np.float64)
    apart = np.abs(finite - x)
    return np.asarray(finite[apart == apart.min()])


@pytest.mark.parametrize("dtype", STORED)
def test_all_bits_are_widened_to_what_rounds_back_to_them(dtype: str) -> None:
    numbers = widened(EVERY, dtype)
    kept = ~np.isnan(numbers)
    assert np.array_equal(rounded(numbers, dtype)[kept], EVERY[kept])
    assert np.isnan(widened(rounded(numbers[~kept], dtype), dtype)).all()


def test_widening_is_that_of_numpy_and_of_the_definition() -> None:
    assert np.array_equal(widened(EVERY, "float16"), EVERY.view(np.float16).astype(np.float32), equal_nan=True)
    shifted = (EVERY.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(widened(EVERY, "bfloat16"), shifted, equal_nan=True)


@given(FINITE.filter(lambda x: abs(x) < 3e38))
def test_bfloat16_is_the_nearest(x: float) -> None:
    found = widened(rounded(np.array([x], np.float32), "bfloat16"), "bfloat16")[0]
    assert found in neighbours(x, "bfloat16")


@given(st.integers(0, (1 << 16) - 1).filter(lambda bits: bits & 0x7F80 < 0x7F00))
def test_ties_go_to_the_even_number(bits: int) -> None:
    middle = np.array([(bits << 16) + 0x8000], np.uint32).view(np.float32)
    assert rounded(middle, "bfloat16")[0] == bits + (bits & 1)


@pytest.mark.parametrize("dtype", STORED)
def test_infinities_and_nan_remain(dtype: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, -0.0], np.float32)
    found = widened(rounded(x, dtype), dtype)
    assert np.array_equal(found, x, equal_nan=True)
    assert np.signbit(found[3])


def test_what_is_too_large_for_float16_is_refused() -> None:
    with pytest.raises(ModelError, match="7e\\+04 cannot be stored in float16, which ends at 65504"):
        rounded(np.array([1, 7e4], np.float32), "float16")


@pytest.mark.parametrize("dtype", STORED)
def test_weights_are_stored_and_norms_and_angles_are_not(dtype: str) -> None:
    graph = stored(tiny().graph, dtype)
    for parameter in graph.parameters:
        matrix = parameter.name.endswith(".weight") and "norm" not in parameter.name
        assert parameter.type.dtype == (dtype if matrix else "float32"), parameter.name
    assert stored_in(graph) == (dtype,)
    assert {graph.types[name].dtype for name in graph.outputs} == {tiny().graph.types[n].dtype for n in graph.outputs}
    assert all(graph.types[node.name].dtype != dtype for node in graph.nodes if node.op != "Transpose")


def test_the_hash_tells_how_weights_are_stored() -> None:
    graph = tiny().graph
    kinds = [graph, *(stored(graph, dtype) for dtype in STORED)]
    assert len({one.hash for one in kinds}) == len(kinds)
    for one in kinds:
        assert as_planned(graph, one.hash) == one
    assert as_planned(graph, "another") is graph
    assert stored(graph, "float32") is graph
    assert stored(kinds[1], "bfloat16") == kinds[1]


def reads_otherwise(b: Builder, w: str) -> str:
    return str(b.Add(b.MatMul(b.input("x", "float32", (4, 4)), w), w))


def gives_it_out(b: Builder, w: str) -> tuple[str, str]:
    return str(b.MatMul(b.input("x", "float32", (2, 4)), w)), str(b.Transpose(w, perm=(1, 0)))


def multiplies_from_the_left(b: Builder, w: str) -> str:
    return str(b.MatMul(b.Transpose(w, perm=(1, 0)), b.input("x", "float32", (4, 2))))


@pytest.mark.parametrize("use", [reads_otherwise, gives_it_out, multiplies_from_the_left])
def test_a_parameter_that_something_else_reads_is_left_as_it_is(use) -> None:
    b = Builder("g")
    found = use(b, b.random("w", (4, 4), seed=1))
    graph = b.graph(*(found if isinstance(found, tuple) else (found,)))
    assert stored(graph, "bfloat16") == graph


def test_nothing_is_computed_in_16_bits() -> None:
    b = Builder("g")
    w = b.parameter("w", (4, 4), RandomSource(1, (4, 4)), "bfloat16")
    with pytest.raises(GraphError, match="input 0 of Add is bfloat16, a type in which parameters are stored"):
        b.Add(w, w)


def test_another_type_is_refused() -> None:
    with pytest.raises(InputError, match='weights cannot be stored in "bfloat6"') as refused:
        stored(tiny().graph, "bfloat6")
    assert "bfloat16" in str(refused.value.hint)


def test_bytes_and_float64() -> None:
    assert [item_bytes(dtype) for dtype in ("float64", "float32", "bool", *STORED)] == [8, 4, 1, 2, 2]
    assert held_as("bfloat16", "float32") == "bfloat16"
    assert held_as("bfloat16", "float64") == held_as("float32", "float64") == "float64"


@pytest.mark.parametrize("dtype", STORED)
def test_a_part_is_read_in_bits_and_widened_only_in_float64(tmp_path, dtype: str) -> None:
    whole = np.random.default_rng(0).normal(size=(700, 300)).astype(np.float32)
    (tmp_path / "w").write_bytes(whole.tobytes())
    source, part = FileSource(str(tmp_path / "w"), 0, "F32", whole.shape), [(3, 650), (7, 211)]
    wanted = rounded(whole, dtype)[3:650, 7:211]
    assert np.array_equal(read(source, part, dtype), wanted)
    parameter = Parameter("w", TensorType(dtype, whole.shape), source)
    assert np.array_equal(read_parameter(parameter, part, dtype), wanted)
    wide = read_parameter(parameter, part, "float64")
    assert wide.dtype == np.float64
    assert np.array_equal(wide, widened(wanted, dtype))


def test_a_file_in_bfloat16_is_read_as_it_is(tmp_path) -> None:
    finite = EVERY[np.isfinite(widened(EVERY, "bfloat16"))][: 250 * 256].reshape(250, 256)
    (tmp_path / "w").write_bytes(finite.tobytes())
    source = FileSource(str(tmp_path / "w"), 0, "BF16", finite.shape)
    assert np.array_equal(read(source, [(0, 250), (0, 256)], "bfloat16"), finite)


def test_a_graph_prints_how_its_weights_are_stored() -> None:
    graph: Graph = stored(tiny().graph, "bfloat16")
    assert str(graph.parameter("token_embd.weight").type) == "bfloat16[257, 72]"
