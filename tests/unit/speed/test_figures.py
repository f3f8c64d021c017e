"""Medians and spreads of figures, and ratios of two figures of one round."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed.figures import Figures, Key, Spread, combined, ratio, spread
from speed.subjects import Subject

ONE, TWO = Subject("numpy"), Subject("numpy", 2, transport="mpi")
values = st.lists(st.none() | st.floats(0.001, 1e6), max_size=9)


def test_a_spread_is_the_median_and_what_it_lies_between():
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0, 3)
    assert spread([4.0, 2.0]) == Spread(3.0, 2.0, 4.0, 2)


def test_rounds_without_a_value_do_not_count():
    assert spread([None, 5.0, None]) == Spread(5.0, 5.0, 5.0, 1)
    assert spread([None]) is None
    assert spread([]) is None


def test_a_ratio_is_of_two_values_of_one_round():
    """The machine was half as fast in the second round, for both: that is no spread of the ratio."""
    assert spread(ratio([20.0, 10.0, 20.0], [10.0, 5.0, 10.0])) == Spread(2.0, 2.0, 2.0, 3)


def test_a_round_counts_only_with_both_values():
    assert ratio([1.0, None, 3.0], [2.0, 2.0]) == [0.5, None]
    assert ratio([1.0], [0.0]) == [None]
    assert ratio([], [1.0]) == []


def test_any_figures_of_a_round_are_combined():
    assert combined(lambda a, b, c: a + b + c, [1.0, 2.0], [10.0, None], [100.0, 100.0]) == [111.0, None]


@given(values)
def test_the_median_lies_within_the_spread(found: list[float | None]):
    seen, there = spread(found), [value for value in found if value is not None]
    if not there:
        assert seen is None
        return
    assert seen is not None
    assert seen.low <= seen.median <= seen.high
    assert (seen.median, seen.rounds) == (statistics.median(there), len(there))


@given(values)
def test_a_figure_is_once_itself(found: list[float | None]):
    seen = spread(ratio(found, found))
    assert seen is None or (seen.low, seen.high) == pytest.approx((1.0, 1.0))


def test_figures_keep_their_round():
    figures = Figures()
    figures.add(0, {Key("decode", ONE): 1.0})
    figures.add(2, {Key("decode", ONE): 3.0, Key("decode", TWO): 6.0})
    assert figures[Key("decode", ONE)] == [1.0, None, 3.0]
    assert ratio(figures[Key("decode", TWO)], figures[Key("decode", ONE)]) == [None, None, 2.0]
    assert figures[Key("prefill", ONE)] == []


def test_figures_are_found_by_what_their_subjects_are():
    figures = Figures({Key("decode", ONE): [1.0], Key("decode", TWO): [2.0], Key("prefill", TWO): [3.0]})
    assert figures.of("decode", maker="numpy") == {ONE: [1.0], TWO: [2.0]}
    assert figures.of("decode", ranks=2) == {TWO: [2.0]}
    assert figures.of("decode", maker="torch") == {}


def test_the_best_has_the_highest_median():
    other = Subject("torch", 2, transport="mpi")
    figures = Figures({Key("decode", TWO): [5.0, 5.0, 1.0], Key("decode", other): [4.0, 4.0, 100.0]})
    assert figures.best("decode", ranks=2) == Key("decode", TWO)
    assert figures.best("decode", lambda s: s.maker != "numpy", ranks=2) == Key("decode", other)
    assert figures.best("decode", ranks=1) is None
