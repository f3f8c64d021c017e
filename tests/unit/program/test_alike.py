"""Ranks that hold the same part of an output hold the same bits of it, in a program that says the same as before."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase, unsplit
from unitp.program.alike import alike, unlike
from unitp.program.check import check
from unitp.program.instructions import AllReduce, Mask, Program
from unitp.program.lower import lower
from unitp.program.rows import CANDIDATES
from unitp.testing.models import EAGER_TO_SPLIT, arrays, tiny
from unitp.testing.simulate import simulate

SIZES = {"batch": 2, "seq": 1, "cache": 128, "live": 128, "take": 1, "candidates": 4}
GRAPH: Graph = tiny().graph


def split(mesh: str) -> Program:
    """A program of which the vocabulary is split."""
    planned = plan(Request(GRAPH, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))
    return lower(GRAPH, planned, "decode", SIZES, CANDIDATES)


def repeated(mesh: str) -> Program:
    """A program that every rank carries out whole."""
    whole = msgspec.structs.replace(unsplit(GRAPH, [Phase("decode", {})]), mesh=Mesh.parse(mesh))
    return lower(GRAPH, whole, "decode", SIZES, CANDIDATES)


@pytest.mark.parametrize("mesh", ["tp=2", "tp=4", "dp=2,tp=2"])
def test_candidates_that_were_gathered_are_alike(mesh: str) -> None:
    program = split(mesh)
    assert unlike(program) == {}
    assert alike(program) is program


@pytest.mark.parametrize("mesh", ["tp=2", "a=2,tp=3"])
def test_those_of_a_repeated_computation_are_broadcast(mesh: str) -> None:
    program = repeated(mesh)
    axes = tuple(axis for axis, _ in program.mesh.axes)
    assert unlike(program) == dict.fromkeys(program.outputs, axes)
    made = alike(program)
    check(made, GRAPH, outputs=CANDIDATES)
    added = made.instructions[len(program.instructions) :]
    assert [type(instruction) for instruction in added] == [Mask, AllReduce] * (2 * len(axes))
    assert [made.values[name] for name in made.outputs] == [program.values[name] for name in program.outputs]


def test_one_rank_is_like_itself() -> None:
    program = repeated("tp=1")
    assert unlike(program) == {}


def inputs() -> dict[str, Any]:
    past = np.array([3, 5], np.int64)
    return {
        "input_ids": np.array([[7], [9]], np.int64),
        "position_ids": past[:, None],
        "write_indices": past,
        "kv_length": past + 1,
        "logits_index": np.zeros((2, 1), np.int64),
    }


def test_what_is_broadcast_is_what_was_computed() -> None:
    program = repeated("tp=2")
    states = {state.input: np.zeros(program.values[state.input].shape, "float32") for state in GRAPH.states}
    weights = arrays({parameter.name: parameter.source for parameter in GRAPH.parameters})
    before, after = (simulate(p, inputs(), weights, states) for p in (program, alike(program)))
    for old, new in zip(before.outputs.values(), after.outputs.values(), strict=True):
        np.testing.assert_array_equal(old, new)
