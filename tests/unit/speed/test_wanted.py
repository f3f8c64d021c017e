"""What the product has to show, worked out by hand from few figures."""

from __future__ import annotations

import pytest
from speed.figures import Figures, Key, Spread
from speed.subjects import EVEN_HEADS, LLAMA, MPI, NATIVE, TRANSFORMERS, Subject
from speed.turns import ALL_REDUCE, ALL_REDUCE_ALONE, BESIDE, DECODE, DECODE_8, DRIVER, KERNEL_GAIN
from speed.wanted import Line, Wanted

NUMPY_1, NUMPY_2 = Subject("numpy"), Subject("numpy", 2, transport=MPI)
TORCH_1, TORCH_MPI, TORCH_GLOO = (
    Subject("torch"),
    Subject("torch", 2, transport=MPI),
    Subject("torch", 2, transport=NATIVE),
)
LLAMA_2 = Subject(LLAMA, threads=2)
BYTES = 500_000_000


def lines(values: dict[Key, list[float | None]]) -> dict[str, Line]:
    found = [*Wanted(Figures(values), BYTES).lines()]
    assert len({line.what for line in found}) == len(found)
    return {line.what: line for line in found}


def test_nothing_is_met_or_missed_that_was_not_measured():
    assert {line.met for line in lines({}).values()} == {None}
    assert {line.got for line in lines({}).values()} == {None}


def test_the_best_backend_is_held_against_llama_round_by_round():
    found = lines({
        Key(DECODE, NUMPY_2): [30.0, 15.0, 28.0],
        Key(DECODE, TORCH_MPI): [14.0, 14.0, 14.0],
        Key(DECODE, LLAMA_2): [20.0, 10.0, 20.0],
    })  # fmt: skip
    line = found["decode tp=2, best backend, over llama.cpp float32 2 threads"]
    assert (line.got, line.of, line.met) == (Spread(1.5, 1.4, 1.5, 3), "numpy mpi tp=2", True)


def test_four_bits_are_no_peer_of_float32():
    found = lines({Key(DECODE, NUMPY_2): [30.0], Key(DECODE, Subject(LLAMA, threads=2, weights="Q4_1")): [70.0]})
    assert found["decode tp=2, best backend, over llama.cpp float32 2 threads"].got is None


def test_a_decode_reads_all_weights_once_of_what_the_machine_could_read_beside_it():
    found = lines({Key(DECODE, NUMPY_2): [30.0, 40.0], Key(BESIDE, NUMPY_2): [20.0, 25.0]})
    line = found["decode tp=2, best backend, of the machine's limit"]
    assert line.got is not None
    assert line.got.low == pytest.approx(30 * 0.5 / 20)
    assert line.got.high == pytest.approx(40 * 0.5 / 25)


def test_a_second_rank_counts_over_the_best_transport():
    found = lines({Key(DECODE, TORCH_1): [10.0], Key(DECODE, TORCH_GLOO): [5.0], Key(DECODE, TORCH_MPI): [15.0]})
    line = found["decode tp=2 over tp=1, torch"]
    assert (line.got, line.of) == (Spread(1.5, 1.5, 1.5, 1), "torch mpi tp=2")
    assert found["decode tp=2, torch over MPI against gloo"].got == Spread(3.0, 3.0, 3.0, 1)


def test_the_gain_of_numpy_is_held_against_that_of_the_bare_kernel():
    found = lines({Key(DECODE, NUMPY_1): [20.0], Key(DECODE, NUMPY_2): [30.0], Key(KERNEL_GAIN, NUMPY_2): [1.6]})
    line = found["the same as part of the bare kernel's gain, numpy"]
    assert line.got is not None
    assert line.got.median == pytest.approx(1.5 / 1.6)
    assert line.met is True


def test_the_second_shape_is_not_taken_for_the_first():
    other = Subject("torch", 2, transport=MPI, shape=EVEN_HEADS)
    found = lines({
        Key(DECODE, TORCH_1): [10.0],
        Key(DECODE, other): [20.0],
        Key(DECODE, Subject(TRANSFORMERS, 2, shape=EVEN_HEADS)): [4.0],
    })  # fmt: skip
    assert found["decode tp=2 over tp=1, torch"].got is None
    assert found["decode tp=2, torch over transformers with its tp_plan, 8/4 heads"].got == Spread(5.0, 5.0, 5.0, 1)


def test_eight_prompts_are_held_against_one_on_as_many_ranks():
    found = lines({
        Key(DECODE, NUMPY_1): [10.0],
        Key(DECODE_8, NUMPY_1): [40.0],
        Key(DECODE, NUMPY_2): [20.0],
        Key(DECODE_8, NUMPY_2): [60.0],
    })  # fmt: skip
    assert found["decode, 8 prompts at once over one, numpy tp=1"].met is True
    assert found["decode, 8 prompts at once over one, numpy tp=2"].met is False


def test_what_has_to_be_low_is_met_below():
    found = lines({
        Key(ALL_REDUCE, NUMPY_2): [30.0, 50.0, 39.0],
        Key(ALL_REDUCE, TORCH_GLOO): [10.0],
        Key(ALL_REDUCE, TORCH_MPI): [70.0],
        Key(ALL_REDUCE_ALONE, Subject("tensorflow", 2, transport=MPI)): [300.0],
        Key(DRIVER, NUMPY_2): [3.5],
    })  # fmt: skip
    assert found["small all-reduce over MPI, numpy"].met is True
    assert found["small all-reduce over MPI, torch"].got == Spread(70.0, 70.0, 70.0, 1)
    assert found["small all-reduce over MPI, tensorflow"].of == "tensorflow mpi tp=2, alone"
    assert found["lost by the driver, numpy tp=2"].met is False
