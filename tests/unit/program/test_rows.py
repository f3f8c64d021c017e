"""Ranks can go on by themselves where each decides on all that it is given."""

from __future__ import annotations

import msgspec
import pytest

from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.program.rows import CANDIDATES, TOKENS, feeds_itself, rows_of
from unitp.testing.models import EAGER_TO_SPLIT, tiny

GRAPH = tiny().graph


def lowered(mesh: str, batch: int = 3) -> Program:
    planned = plan(Request(GRAPH, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))
    sizes = {"batch": batch, "seq": 1, "cache": 128, "live": 128, "take": 1, "candidates": 4}
    return lower(GRAPH, planned, "decode", sizes, CANDIDATES)


@pytest.mark.parametrize("mesh", ["tp=1", "tp=2", "dp=3", "dp=2,tp=2"])
def test_as_planned_ranks_do(mesh: str) -> None:
    program = lowered(mesh)
    assert feeds_itself(program)
    assert all(rows_of(program, rank).apart for rank in range(program.mesh.size))


def test_rows_are_those_of_the_batch() -> None:
    found = [rows_of(lowered("dp=2,tp=2"), rank) for rank in range(4)]
    assert [rows.decided for rows in found] == [(0, 2), (0, 2), (2, 3), (2, 3)]
    assert all(rows.fed == dict.fromkeys(rows.fed, rows.decided) for rows in found)


def changed(program: Program, **dims: tuple[Split | None, ...]) -> Program:
    """The program with other layouts of values."""
    values = {
        name: msgspec.structs.replace(value, layout=Layout(dims[name])) if name in dims else value
        for name, value in program.values.items()
    }
    return msgspec.structs.replace(program, values=values)


HALVES = Split(("tp",), ((0, 2), (2, 3)))


def test_a_rank_that_is_given_more_rows_than_it_decides_on_does_not() -> None:
    program = lowered("tp=2")
    fewer = changed(program, **dict.fromkeys(program.outputs, (HALVES, None, None)))
    assert not feeds_itself(fewer)
    split = {name: (HALVES, *[None] * (len(program.values[name].shape) - 1)) for name in program.inputs}
    assert feeds_itself(changed(fewer, **split))
    assert not rows_of(changed(fewer, **split), 0).apart


def test_a_rank_that_decides_on_more_rows_than_it_is_given_does() -> None:
    program = lowered("tp=2")
    assert feeds_itself(changed(program, **{TOKENS: (HALVES, None)}))


def test_candidates_in_parts_are_not_enough() -> None:
    program = lowered("tp=2")
    parts = Split(("tp",), ((0, 2), (2, 4)))
    assert not feeds_itself(changed(program, **dict.fromkeys(program.outputs, (None, None, parts))))
