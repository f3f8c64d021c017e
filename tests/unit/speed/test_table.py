"""Tables as text and as Markdown."""

from __future__ import annotations

import pytest
from speed.table import Table


def table() -> Table:
    made = Table(("who", "", "tokens/s"), right=(2,))
    made.add("numpy tp=1", "met", "21.1")
    made.add("torch", "", "9.2")
    return made


def test_numbers_stand_to_the_right():
    assert table().text() == "who              tokens/s\nnumpy tp=1  met      21.1\ntorch                 9.2"


def test_markdown_has_the_same_cells():
    assert table().markdown() == (
        "| who |  | tokens/s |\n| --- | --- | ---: |\n| numpy tp=1 | met | 21.1 |\n| torch |  | 9.2 |"
    )


def test_a_column_in_which_there_is_nothing_is_left_out():
    made = Table(("who", "text", "tokens/s"), right=(2,))
    made.add("numpy", "", "21.1")
    assert made.text() == "who    tokens/s\nnumpy      21.1"
    assert made.markdown() == "| who | tokens/s |\n| --- | ---: |\n| numpy | 21.1 |"


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="2 cells under 3 columns"):
        table().add("numpy", "21.1")
