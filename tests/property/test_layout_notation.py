"""Layouts and splits have one notation: what is written is read back, and whatever is read is a value or a PlanError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp.errors import PlanError
from unitp.layout import Layout, Split, parse_layout, parse_split
from unitp.planner.problem.pin_notation import parse

AXES = st.lists(st.sampled_from(["dp", "tp", "pp", "größe", "x_1"]), min_size=1, max_size=3, unique=True).map(tuple)
ROWS = st.tuples(st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))
SPLITS = st.builds(Split, AXES, st.lists(ROWS, max_size=5).map(tuple))
DIMS = st.lists(st.none() | SPLITS, max_size=5).map(tuple)
LAYOUTS = st.builds(Layout, DIMS) | st.builds(Layout, DIMS, AXES, st.sampled_from(["sum", "max"]))
TEXT = st.text(alphabet="dtp*+-,|[]:0159 sumaxeven\u0660", max_size=30)


@given(SPLITS)
def test_a_split_is_read_as_it_was_written(split: Split) -> None:
    assert parse_split(str(split)) == split


@given(LAYOUTS)
def test_a_layout_is_read_as_it_was_written(layout: Layout) -> None:
    assert parse_layout(str(layout)) == layout


@given(LAYOUTS)
def test_a_layout_is_written_with_names_of_its_splits(layout: Layout) -> None:
    named: dict[str, Split] = {}

    def name(split: Split) -> str:
        named[key := f"s{len(named)}"] = split
        return key

    assert parse_layout(layout.text(name), named.__getitem__) == layout


@given(LAYOUTS.filter(lambda layout: layout.dims), st.sampled_from(["", "x=", "y1 = "]))
def test_a_pin_takes_what_a_layout_prints(layout: Layout, where: str) -> None:
    pin = parse(f"blk.[01]:0/w: {where}{layout}, R")
    assert pin.pattern == "blk.[01]:0/w"
    assert [atom.layout for atom in pin.atoms] == [layout, None]


@given(TEXT)
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        found = parse_layout(text)
    except PlanError:
        return
    assert parse_layout(str(found)) == found


@pytest.mark.parametrize(
    "text", ["s1", "tp[]", "[0:1]", "tp[0:1", "tp[0:1]]", "tp[0:1 ]", "tp**dp[even]", "tp[\u0660:1]", "a,b[even]"]
)
def test_no_split_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="is not a split; write one as"):
        parse_split(text)


@pytest.mark.parametrize("text", ["-|", "-|sum", "-|sum:", "-|mean:tp", "-|sum:tp+", "-|sum:tp|max:dp", "|"])
def test_no_partial_layout_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="is not a layout; write partial ones as"):
        parse_layout(text)
