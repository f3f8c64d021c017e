"""The kernels of few rows give what NumPy's float64 gives, on any shapes, and programs of few rows what the interpreter gives."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from math import sqrt
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from places import CONTEXT, small_model, small_plan
from unitp_numpy.executor import NumpyEngine
from unitp_numpy.kernels import library, rows
from unitp_numpy.kernels.program import FewRows, prepared
from unitp_numpy.kernels.scratch import Pool
from unitp_numpy.kernels.table import Input, Output, Row, address, empty_table
from unitp_numpy.kernels.widening import by_exponents, from_float16
from unitp_numpy.stored import product as by_blocks

from unitp.comparison.metrics import relative_error
from unitp.engine.eager import EagerProgram
from unitp.graph.ops import operator
from unitp.graph.stored import rounded, widened
from unitp.graph.values import STORED
from unitp.graph.weights import read
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.program.rank import Context, local_shape

Array = npt.NDArray[Any]

BOUND = {"float32": 2e-6, "float64": 1e-14}
DTYPES = st.sampled_from(sorted(BOUND))
FEW = st.integers(1, rows.FEW)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    assert library.prepare(sys.executable, os.environ, lambda text: None) == ""


def carried_out(row: Row | None, inputs: list[Array | None], shape: tuple[int, ...], dtype: str) -> Array:
    """What a row makes of its inputs, in an output full of NaN."""
    assert row is not None
    out, table = np.full(shape, np.nan, dtype), empty_table(1)
    table[0, 0] = row.op
    for i, argument in enumerate(row.arguments, 1):
        if isinstance(argument, Input):
            given_ = inputs[argument.place]
            assert given_ is not None
            table[0, i] = address(given_)
        elif isinstance(argument, Output):
            table[0, i] = address(out)
        else:
            table[0, i] = argument if isinstance(argument, int) else address(argument)
    library.load(dtype)(address(table), 1)
    return out


def context(op: str, inputs: list[Array | None], shape: tuple[int, ...], dtype: str, **attrs: Any) -> Context:
    shapes = tuple(x.shape if x is not None else None for x in inputs)
    return Context(op, operator(op).attributes(attrs), shapes, (shape,), {}, dtype, shapes)


def computed(op: str, inputs: list[Array | None], shape: tuple[int, ...], dtype: str, **attrs: Any) -> Array:
    return carried_out(rows.row_of(context(op, inputs, shape, dtype, **attrs), inputs), inputs, shape, dtype)


def numbers(seed: int, *shape: int, dtype: str) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(x: Array) -> Array:
    return x.astype(np.float64)


@examples(60)
@given(FEW, st.integers(1, 70), st.integers(1, 70), DTYPES, st.integers(0, 99))
def test_a_product(m: int, n: int, k: int, dtype: str, seed: int) -> None:
    x, w = numbers(seed, 1, m, k, dtype=dtype), numbers(seed + 1, n, k, dtype=dtype)
    found = computed("MatMul", [x, w.T], (1, m, n), dtype)
    assert relative_error(found, wide(x) @ wide(w).T) < BOUND[dtype]


@examples(60)
@given(FEW, st.integers(1, 70), st.integers(1, 70), st.sampled_from(STORED), st.integers(0, 99))
def test_a_product_with_a_weight_of_16_bits(m: int, n: int, k: int, stored: str, seed: int) -> None:
    x, w = numbers(seed, 1, m, k, dtype="float32"), rounded(numbers(seed + 1, n, k, dtype="float32"), stored)
    ctx = context("MatMul", [x, w.T], (1, m, n), "float32")._replace(stored=stored)
    found = carried_out(rows.row_of(ctx, [x, w.T]), [x, w.T], (1, m, n), "float32")
    assert relative_error(found, wide(x) @ wide(widened(w, stored)).T) < BOUND["float32"]


@examples(40)
@given(st.integers(1, 40), st.integers(1, 700), st.integers(1, 3000), st.sampled_from(STORED), st.integers(0, 99))
def test_a_product_of_many_rows_with_a_weight_of_16_bits(m: int, n: int, k: int, stored: str, seed: int) -> None:
    x, w = numbers(seed, m, k, dtype="float32"), rounded(numbers(seed + 1, n, k, dtype="float32"), stored)
    out = np.full((m, n), np.nan, np.float32)
    by_blocks(x, w, stored, out)
    assert relative_error(out, wide(x) @ wide(widened(w, stored)).T) < BOUND["float32"]


@pytest.mark.parametrize("one", [from_float16, by_exponents])
def test_every_number_of_16_bits_is_widened_in_registers(one: Any) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)

    @numba.njit
    def all_of(bits: Array, out: Array) -> None:
        for i in range(bits.size):
            out[i] = one(bits[i])

    out = np.empty(every.size, np.float32)
    all_of(every, out)
    assert np.array_equal(out, widened(every, "float16"), equal_nan=True)
    assert np.array_equal(np.signbit(out), (every & 0x8000) != 0)


@examples(40)
@given(FEW, st.integers(1, 70), DTYPES, st.integers(0, 99))
def test_a_norm(m: int, d: int, dtype: str, seed: int) -> None:
    x, scale = numbers(seed, m, 1, d, dtype=dtype), numbers(seed + 1, d, dtype=dtype)
    found = computed("RMSNormalization", [x, scale], x.shape, dtype, axis=-1, epsilon=1e-3)
    root = np.sqrt((wide(x) ** 2).mean(-1, keepdims=True) + float(np.float32(1e-3)))
    assert relative_error(found, wide(x) / root * wide(scale)) < BOUND[dtype]


@examples(40)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans(), DTYPES)
def test_a_rotation(b: int, h: int, s: int, half: int, pairs: bool, rest: bool, dtype: str) -> None:
    d = 2 * half + rest
    x, cos, sin = (numbers(i, *shape, dtype=dtype) for i, shape in enumerate([(b, s, h, d), (9, half), (9, half)]))
    x = x.transpose(0, 2, 1, 3)
    at = np.random.default_rng(b).integers(0, 9, (b, s))
    inputs: list[Array | None] = [x, cos, sin, at]
    found = computed("RotaryEmbedding", inputs, x.shape, dtype, interleaved=int(pairs), rotary_embedding_dim=2 * half)
    whole = 2 * half
    neighbours, halves = (np.s_[..., 0:whole:2], np.s_[..., 1:whole:2]), (np.s_[..., :half], np.s_[..., half:whole])
    first, second = neighbours if pairs else halves
    c, t, wanted = wide(cos)[at][:, None], wide(sin)[at][:, None], wide(x)
    wanted[first], wanted[second] = (
        wide(x)[first] * c - wide(x)[second] * t,
        wide(x)[second] * c + wide(x)[first] * t,
    )
    assert relative_error(found, wanted) < BOUND[dtype]


@examples(60)
@given(st.data(), DTYPES)
def test_attention(data: st.DataObject, dtype: str) -> None:
    """Grouped heads, causal or not, over the valid rows of a larger cache; a query that sees nothing gives zeros."""
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    b, g, share, s, d, e, keys = pick(1, 3), pick(1, 3), pick(1, 3), pick(1, 5), pick(1, 9), pick(1, 9), pick(5, 20)
    room, causal = keys + pick(0, 4), data.draw(st.booleans())
    shapes = [(b, g * share, s, d), (b, g, room, d), (b, g, room, e)]
    q, k, v = (numbers(i, *shape, dtype=dtype) for i, shape in enumerate(shapes))
    valid = np.array(data.draw(st.lists(st.integers(0, keys), min_size=b, max_size=b)))
    inputs: list[Array | None] = [q, k[:, :, :keys], v[:, :, :keys], None, None, None, valid]
    found = computed("Attention", inputs, (b, g * share, s, e), dtype, is_causal=int(causal))
    wanted = np.zeros((b, g * share, s, e))
    for i, h, t in np.ndindex(b, g * share, s):
        last = valid[i] - (s - 1 - t) if causal else valid[i]
        if last > 0:
            scores = wide(k)[i, h // share, :last] @ wide(q)[i, h, t] * float(np.float32(1 / sqrt(d)))
            weights = np.exp(scores - scores.max())
            wanted[i, h, t] = weights @ wide(v)[i, h // share, :last] / weights.sum()
    assert np.abs(found - wanted).max() < 20 * BOUND[dtype]


@examples(30)
@given(FEW, st.integers(1, 40), DTYPES, st.sampled_from(["Add", "Mul"]))
def test_sums_and_products(m: int, n: int, dtype: str, op: str) -> None:
    a, b = numbers(0, m, n, dtype=dtype), numbers(1, m, n, dtype=dtype)
    assert np.array_equal(computed(op, [a, b], a.shape, dtype), a + b if op == "Add" else a * b)


@examples(30)
@given(st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=40), DTYPES, st.sampled_from([1.0, 1.702]))
def test_swish(values: list[float], dtype: str, alpha: float) -> None:
    x = np.array(values, dtype)
    with np.errstate(over="ignore"):
        wanted = wide(x) / (1 + np.exp(-float(np.float32(alpha)) * wide(x)))
    error = np.abs(computed("Swish", [x], x.shape, dtype, alpha=alpha) - wanted)
    assert (error <= (1e-6 + 2e-7 * np.abs(wide(x))) * np.abs(wanted) + 1e-35).all()  # exp doubles the error of alpha x


@examples(30)
@given(st.permutations([0, 1, 2]), st.lists(st.integers(1, 4), min_size=4, max_size=4), DTYPES)
def test_a_copy_of_what_is_transposed(order: list[int], shape: list[int], dtype: str) -> None:
    x = numbers(0, *shape, dtype=dtype).transpose(*order, 3)
    assert np.array_equal(carried_out(rows.move(x), [x], x.shape, dtype), x)


@examples(30)
@given(st.lists(st.integers(-6, 5), min_size=1, max_size=8), DTYPES, st.integers(0, 5), st.integers(0, 5))
def test_a_look_up_of_a_part(ids: list[int], dtype: str, a: int, b: int) -> None:
    """A rank with rows a to b gives zeros for those of others; negative numbers count from the end."""
    first, stop = min(a, b), max(a, b) + 1
    whole, at = numbers(0, 6, 3, dtype=dtype), np.array([ids])
    part = np.ascontiguousarray(whole[first:stop])
    ctx = context("Gather", [part, at], (1, len(ids), 3), dtype)
    ctx = ctx._replace(intervals={"v": (first, stop)}, whole=((6, 3), at.shape))
    found = carried_out(rows.row_of(ctx, [part, at]), [part, at], (1, len(ids), 3), dtype)
    held = (at % 6 >= first) & (at % 6 < stop)
    assert np.array_equal(found, np.where(held[..., None], whole[at], 0))


@examples(30)
@given(st.lists(st.integers(-6, 5), min_size=1, max_size=8), st.sampled_from(STORED), st.integers(0, 5))
def test_a_look_up_in_a_table_of_16_bits(ids: list[int], stored: str, first: int) -> None:
    table, at = rounded(numbers(0, 6, 3, dtype="float32"), stored), np.array([ids])
    part = np.ascontiguousarray(table[first:])
    ctx = context("Gather", [part, at], (1, len(ids), 3), "float32")
    ctx = ctx._replace(intervals={"v": (first, 6)}, whole=((6, 3), at.shape), stored=stored)
    found = carried_out(rows.row_of(ctx, [part, at]), [part, at], (1, len(ids), 3), "float32")
    assert np.array_equal(found, np.where((at % 6 >= first)[..., None], widened(table, stored)[at], 0))


@pytest.mark.parametrize("dtype", sorted(BOUND))
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_are_not_lost(strange: float, dtype: str) -> None:
    x, w = numbers(0, 1, 5, dtype=dtype), np.ones((8, 5), dtype)
    x[0, 2] = strange
    one = np.ones(5, dtype)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(computed("MatMul", [x, w.T], (1, 8), dtype), x @ w.T, equal_nan=True)
        assert not np.isfinite(computed("RMSNormalization", [x, one], (1, 5), dtype)).all()
        assert np.array_equal(computed("Add", [x, x], (1, 5), dtype), x + x, equal_nan=True)
        swish = computed("Swish", [x], (1, 5), dtype)[0, 2]
    assert np.isnan(swish) or (swish == strange and np.isinf(strange))
    q = np.full((1, 1, 1, 5), 1, dtype)
    k = np.ones((1, 1, 3, 5), dtype)
    k[0, 0, 1, 2] = np.nan
    inputs: list[Array | None] = [q, k, np.ones_like(k)]
    assert np.isnan(computed("Attention", inputs, q.shape, dtype)).all()


def test_what_no_kernel_does_is_left_to_numpy() -> None:
    x, w = np.ones((1, rows.FEW + 1, 4), np.float32), np.ones((3, 4), np.float32)
    assert rows.row_of(context("MatMul", [x, w.T], (1, 17, 3), "float32"), [x, w.T]) is None  # many rows
    across: list[Array | None] = [x[:, :1], w.T.copy()]  # a row of [k, n] is a column of the weight
    assert rows.row_of(context("MatMul", across, (1, 1, 3), "float32"), across) is None
    assert rows.row_of(context("Mul", [x, x[:, :1]], x.shape, "float32"), [x, x[:, :1]]) is None  # a broadcast
    ids = np.ones((1, 2), np.int64)
    assert rows.row_of(context("Add", [ids, ids], (1, 2), "int64"), [ids, ids]) is None


# whole programs


def engine(dtype: str) -> NumpyEngine:
    model, made = small_model(), NumpyEngine(0, Mesh(tp=1), None)
    for p in model.graph.parameters:
        shape = [n if isinstance(n, int) else CONTEXT for n in p.type.shape]
        made.load(p.name, read(p.source, tuple((0, n) for n in shape), dtype))
    return made


@pytest.mark.parametrize("dtype", sorted(BOUND))
def test_programs_of_few_rows_do_what_the_interpreter_does(dtype: str) -> None:
    """Calls one after the other, of several sizes, on two banks: all outputs, and all states as they are left."""
    made = engine(dtype)
    pool, banks = Pool(), {False: states_of(made, dtype, 2), True: states_of(made, dtype, 2)}
    rng = np.random.default_rng(0)
    at, kinds = 0, set()
    for seq in (1, 3, 1, 8, 1, 1, 20, 16):
        program = lower(small_model().graph, small_plan("tp=1"), "decode", sizes(2, seq), dtype=dtype)
        runner = made.folded(program)
        fast = prepared(runner, pool, made.kernels, None)
        assert fast is not None
        kinds.add(len(fast.steps))
        inputs = call(rng, 2, seq, at, program)
        outputs = [
            run.run({**inputs, **banks[which]})
            for which, run in ((False, EagerProgram(made.folded(program))), (True, fast))
        ]
        for name in program.outputs:
            assert relative_error(outputs[1][name], wide(outputs[0][name])) < 10 * BOUND[dtype], (seq, name)
        for (old, new), states in ((pair, banks) for pair in program.states):
            assert outputs[1][new] is states[True][old]
            assert relative_error(states[True][old], wide(states[False][old])) < 10 * BOUND[dtype]
        at += seq
    assert min(kinds) < 12, "a program of few rows is few calls"


def sizes(batch: int, seq: int) -> dict[str, int]:
    return {"batch": batch, "seq": seq, "cache": CONTEXT, "live": CONTEXT, "take": 1, "candidates": 2}


def states_of(made: NumpyEngine, dtype: str, batch: int) -> dict[str, Array]:
    program = lower(small_model().graph, small_plan("tp=1"), "decode", sizes(batch, 1), dtype=dtype)
    return {old: np.zeros(local_shape(program, old, 0), dtype) for old, _ in program.states}


def call(rng: np.random.Generator, batch: int, seq: int, at: int, program: Program) -> Mapping[str, Array]:
    every = {
        "input_ids": rng.integers(0, 200, (batch, seq)),
        "position_ids": np.tile(np.arange(at, at + seq), (batch, 1)),
        "write_indices": np.full(batch, at),
        "kv_length": np.full(batch, at + seq),
        "logits_index": np.full((batch, 1), seq - 1),
    }
    return {name: every[name] for name in program.inputs}


def test_programs_share_places() -> None:
    """The place of a value is another's after its last reader: 30 layers need no more than one."""
    made = engine("float32")
    runner = made.folded(lower(small_model().graph, small_plan("tp=1"), "decode", sizes(1, 1)))
    pool = Pool()
    assert isinstance(prepared(runner, pool, made.kernels, None), FewRows)
    values = sum(part.step is not None for part in runner.parts)
    assert pool.places() < values / 2
    before = pool.places()
    prepared(runner, pool, made.kernels, None)
    assert pool.places() == before
