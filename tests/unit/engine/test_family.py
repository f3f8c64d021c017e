"""Decompositions beyond what ONNX's vectors show: parts of a whole, head maps, masks, exactness in float64."""

from __future__ import annotations

import math
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitp.comparison.metrics import MEANING, relative_error
from unitp.engine import operators as decompositions
from unitp.engine.operators.attention import Run, runs
from unitp.engine.operators.family import Family
from unitp.errors import ProgramError
from unitp.graph.ops import known_ops, operator
from unitp.graph.ops.attention import FEWEST, SCORES, blocks
from unitp.program.rank import Context
from unitp.testing.onnx_cases import reference
from unitp.testing.operators import eager, kit, run_operator

NUMPY = kit("numpy")
P = NUMPY.primitives
PLAIN, FAST = NUMPY_ENGINES = eager(NUMPY, overridden=False), eager(NUMPY)
RNG = np.random.default_rng(7)


def context(op, inputs, outputs, attrs=None, intervals=None, whole=None, dtype="float64"):
    """A rank's context, from arrays or shapes."""
    shapes = tuple(None if x is None else tuple(np.shape(x)) for x in inputs)
    return Context(op, attributes(op, attrs or {}), shapes, tuple(outputs), intervals or {}, dtype, whole or shapes)


def attributes(op, given):
    """A node's attributes, with the operator's defaults."""
    return operator(op).attributes(given)


def test_every_operator_has_one_decomposition():
    assert known_ops() <= decompositions.ops()
    with pytest.raises(ProgramError, match='Did you mean "Softmax"'):
        decompositions.get("SoftMax")
    family = Family()
    family("Add")(decompositions.get("Add"))
    with pytest.raises(ProgramError, match="two decompositions"):
        family("Add")(decompositions.get("Add"))


def test_erf_is_exact_in_float64():
    x = np.concatenate(
        [RNG.normal(size=4000) * 2, 10.0 ** RNG.uniform(-300, 1, 500), [0.0, 0.84375, 1.25, 1 / 0.35, 6.0]]
    )
    x = np.concatenate([x, -x])
    found, wanted = P.erf(x), np.array([math.erf(v) for v in x])
    assert np.all(np.abs(found - wanted) <= 4 * np.spacing(np.abs(wanted)))
    assert np.array_equal(P.erf(np.array([np.inf, -np.inf, np.nan])), [1, -1, np.nan], equal_nan=True)
    assert P.erf(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_in_float64(approximate):
    x = RNG.normal(size=200) * 3
    inner = [math.erf(v / math.sqrt(2)) for v in x]
    if approximate == "tanh":
        inner = [math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)) for v in x]
    (found,) = run_operator("Gelu", {"approximate": approximate}, [x], FAST)
    assert relative_error(found, 0.5 * x * (1 + np.array(inner))) <= MEANING


def test_sigmoid_and_swish_of_huge_numbers_are_finite():
    x = np.array([-1e4, -80, 0, 80, 1e4], np.float32)
    assert np.allclose(P.sigmoid(x), [0, math.exp(-80), 0.5, 1, 1], rtol=1e-6, atol=0)
    for overridden in (True, False):
        (found,) = run_operator("Swish", {}, [x], NUMPY_ENGINES[overridden])
        assert np.allclose(found, [0, -80 * math.exp(-80), 0, 80, 1e4], rtol=1e-6, atol=0)


def test_softmax_is_stable():
    x = np.array([[1e30, 1e30, -1e30], [-1e4, -1e4 - 1, -2e4]])
    (found,) = run_operator("Softmax", {}, [x], FAST)
    assert relative_error(found, np.array([[0.5, 0.5, 0], [1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0]])) <= MEANING


def test_float_attributes_are_their_float32_rounding():
    x = np.full((1, 4), 1e-3)
    (found,) = run_operator("RMSNormalization", {"epsilon": 1e-6}, [x, np.ones(4)], PLAIN)
    (fast,) = run_operator("RMSNormalization", {"epsilon": 1e-6}, [x, np.ones(4)], FAST)
    wanted = 1e-3 / math.sqrt(1e-6 + float(np.float32(1e-6)))
    assert relative_error(found, np.full((1, 4), wanted)) <= 1e-15
    assert relative_error(fast, found) <= 1e-15


@pytest.mark.parametrize("to", ["float32", "float64", "int64", "int32", "bool"])
def test_cast(to):
    for x in (np.array([-1.7, 0.0, 2.9]), np.array([-1, 0, 3]), np.array([True, False, True])):
        ctx = context("Cast", [x], [(3,)], {"to": to}, dtype=to)
        found = decompositions.get("Cast")(P, ctx, x)
        assert found.dtype.name == to
        assert np.array_equal(found, x.astype(to))


def test_gather_nd_picks_one_row_per_place():
    data, ids = RNG.normal(size=(3, 5, 2)), RNG.integers(-5, 5, (3, 4, 1))
    (found,) = run_operator("GatherND", {"batch_dims": 1}, [data, ids], FAST)
    assert np.array_equal(found, np.stack([data[b][ids[b, :, 0]] for b in range(3)]))


# parts of a whole


@pytest.mark.parametrize("dim", [0, 1])
def test_gather_looks_up_what_a_rank_holds_and_gives_zeros_else(dim):
    data, ids = RNG.normal(size=(7, 7)), RNG.integers(-7, 7, (2, 3))
    whole, total = np.take(data, ids, dim), 0
    for interval in pairwise([0, 3, 3, 7]):
        part = data.take(range(*interval), dim) if interval[1] > interval[0] else None
        shape = tuple(b - a if i == dim else 7 for i, (a, b) in enumerate([interval, interval]))
        attrs, intervals = attributes("Gather", {"axis": dim}), {"v": interval}
        ctx = Context("Gather", attrs, (shape, ids.shape), (whole.shape,), intervals, "float64", ((7, 7), ids.shape))
        total = total + decompositions.get("Gather")(P, ctx, part, ids)
    assert np.array_equal(total, whole)


def test_top_k_of_a_part_has_places_in_the_whole_and_ties_go_to_the_lowest():
    x = np.array([[2, 5, 5, 1, 5, 2]], np.float64)
    ctx = context("TopKPart", [x[:, 2:]], [(1, 3)] * 2, {"k": 3, "axis": 1}, {"v": (2, 6), "c": (2, 5)}, ((1, 6),))
    values, ids = decompositions.get("TopKPart")(P, ctx, x[:, 2:])
    assert values.tolist() == [[5, 5, 2]]
    assert ids.tolist() == [[2, 4, 5]]


def test_sums_over_nothing():
    assert decompositions.get("ReduceSum")(
        P, context("ReduceSum", [(0, 3)], [(1, 3)], {"axes": (0,)}), None
    ).tolist() == [[0] * 3]
    lowest = decompositions.get("ReduceMax")(P, context("ReduceMax", [(0, 3)], [(1, 3)], {"axes": (0,)}), None)
    assert lowest.tolist() == [[-np.inf] * 3]
    ctx = Context("MatMul", attributes("MatMul", {}), ((2, 0), (0, 3)), ((2, 3),), {}, "float32")
    assert np.array_equal(decompositions.get("MatMul")(P, ctx, None, None), np.zeros((2, 3), np.float32))
    ctx = Context("Gemm", attributes("Gemm", {"beta": 2.0}), ((2, 0), (0, 3), (3,)), ((2, 3),), {}, "float64")
    assert decompositions.get("Gemm")(P, ctx, None, None, np.ones(3)).tolist() == [[2.0] * 3] * 2


# attention


def attend(attrs, q, k, v, mask, length, interval, overridden):
    """One rank's heads of an attention, from whole arrays."""
    heads, groups = q.shape[1], k.shape[1]
    ratio, (a, b) = heads // groups, interval
    held = slice(a // ratio, -(-b // ratio))
    mine = mask if mask is None or mask.ndim < 3 or mask.shape[-3] == 1 else mask[..., a:b, :, :]
    inputs = [q[:, a:b], k[:, held], v[:, held], mine, None, None, length]
    shapes = tuple(None if x is None else x.shape for x in inputs)
    wholes = tuple(None if x is None else x.shape for x in (q, k, v, mask, None, None, length))
    intervals = {} if interval == (0, heads) else {"h": interval}
    out = (q.shape[0], b - a, q.shape[2], v.shape[3])
    ctx = Context("Attention", attributes("Attention", attrs), shapes, (out,), intervals, "float64", wholes)
    override = NUMPY.overrides.get("Attention", "float64") if overridden else None
    return (override or decompositions.get("Attention"))(P, ctx, *inputs)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_interval_of_heads_under_any_mask_equals_the_reference(data):
    draw = data.draw
    batch, groups, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    queries, keys, size = draw(st.integers(1, 5)), draw(st.integers(1, 9)), 4
    heads = groups * ratio
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    q, k, v = (rng.normal(size=(batch, n, t, size)) for n, t in ((heads, queries), (groups, keys), (groups, keys)))
    attrs = {"is_causal": draw(st.integers(0, 1)), "scale": 0.25}
    if draw(st.booleans()):
        attrs["softcap"] = 2.0
    kind = draw(st.sampled_from(["none", "bool", "float"]))
    shape = draw(
        st.sampled_from([(queries, keys), (heads, 1, keys), (batch, 1, queries, keys), (1, heads, queries, keys)])
    )
    mask = {"none": None, "bool": rng.random(shape) < 0.7, "float": rng.normal(size=shape)}[kind]
    length = rng.integers(1, keys + 1, batch) if draw(st.booleans()) else None
    a = draw(st.integers(0, heads - 1))
    interval = (a, draw(st.integers(a + 1, heads)))
    full = None if mask is None else np.broadcast_to(mask, (*mask.shape[:-2], queries, keys))
    inputs = [q, k, v, full, None, None, length]  # the evaluator takes the number of queries from the mask
    while inputs[-1] is None:
        inputs.pop()
    (wanted,) = reference("Attention", attrs, inputs, 1)
    at_once = draw(st.sampled_from([1, 2, 64]))
    with patch.multiple("unitp.graph.ops.attention", SCORES=0, FEWEST=at_once):
        for overridden in (True, False):
            found = attend(attrs, q, k, v, mask, length, interval, overridden)
            assert relative_error(found, wanted[:, slice(*interval)]) <= MEANING


def test_scores_are_held_for_as_many_queries_as_there_is_room_for():
    assert blocks(512, SCORES // 512) == [(0, 512)]
    assert blocks(512, SCORES // 511) == [(0, 256), (256, 512)]
    assert blocks(1, 100 * SCORES) == [(0, 1)]
    assert {b - a for a, b in blocks(512, 100 * SCORES)} == {FEWEST}
    assert [b for _, b in blocks(500, SCORES // 200)] == [166, 333, 500]


def test_queries_that_see_nothing_give_zeros_on_every_path():
    q, k = np.ones((1, 2, 4, 4)), np.ones((1, 1, 6, 4))
    for overridden in (True, False):
        found = attend({"is_causal": 1}, q, k, k, None, np.array([2]), (0, 2), overridden)
        assert found[0, 0].tolist() == [[0.0] * 4] * 2 + [[1.0] * 4] * 2


def test_head_maps_of_nine_heads_in_three_groups():
    def of(start, stop, heads=9, groups=3):
        whole = ((1, heads, 1, 4), (1, groups, 1, 4))
        return runs(Context("Attention", attributes("Attention", {}), (), (), {"h": (start, stop)}, "float32", whole))

    assert of(0, 5) == [Run(0, 0, 1, 3), Run(3, 1, 1, 2)]
    assert of(5, 9) == [Run(0, 0, 1, 1), Run(1, 1, 1, 3)]
    assert of(0, 9) == [Run(0, 0, 3, 3)]
    assert of(2, 4) == [Run(0, 0, 2, 1)]
    assert of(3, 3) == []


@pytest.mark.parametrize("overridden", [True, False])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("size", [0, 4])
def test_rotary_embedding_of_some_heads(overridden, interleaved, size):
    x, at = RNG.normal(size=(2, 3, 5, 6)), RNG.integers(0, 9, (2, 5))
    half = (size or 6) // 2
    cos, sin = RNG.normal(size=(9, half)), RNG.normal(size=(9, half))
    attrs = {"interleaved": interleaved, "rotary_embedding_dim": size}
    found = run_operator("RotaryEmbedding", attrs, [x, cos, sin, at], NUMPY_ENGINES[overridden])
    wanted = x.copy()
    for b, h, s, i in np.ndindex(2, 3, 5, half):
        one, two = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        turn = complex(x[b, h, s, one], x[b, h, s, two]) * complex(cos[at[b, s], i], sin[at[b, s], i])
        wanted[b, h, s, one], wanted[b, h, s, two] = turn.real, turn.imag
    assert relative_error(found[0], wanted) <= MEANING


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_few_rows(rows, dtype):
    x, y = RNG.integers(-8, 9, (2, rows, 33)).astype(dtype), RNG.integers(-8, 9, (33, 17)).astype(dtype)
    (found,) = run_operator("MatMul", {}, [x, y], FAST)
    assert found.dtype == dtype
    assert np.array_equal(found, x @ y)


def test_tensor_scatter_leaves_what_it_read():
    past, rows, starts = RNG.normal(size=(2, 3, 7, 4)), RNG.normal(size=(2, 3, 2, 4)), np.array([5, 1])
    before = past.copy()
    (found,) = run_operator("TensorScatter", {"axis": 2}, [past, rows, starts], FAST)
    before_update = before.copy()
    before_update[0, :, 5:7], before_update[1, :, 1:3] = rows
    assert np.array_equal(found, before_update)
    assert np.array_equal(past, before)
