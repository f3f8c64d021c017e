"""How many sequences a session has rows for: what was asked for, and no more than the plan's memory limit allows."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import pytest

from unitp.certificate import CertifiedPlan
from unitp.errors import InputError
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.program.lower import lower
from unitp.program.memory import peaks
from unitp.session.capacity import DEFAULT_SEQUENCES, caches, enough_for, rows_for
from unitp.testing.models import EAGER_TO_SPLIT, tiny

CONTEXT = 512


@lru_cache
def limited(mesh: str, sequences: int) -> tuple[CertifiedPlan, int]:
    """A plan whose limit is what the rank needs that needs most, with caches for so many sequences; and the limit."""
    graph = tiny().graph
    free = plan(Request(graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT))
    others = [m.parameters + m.activations for m in peaks([lower(graph, free, p.phase.name) for p in free.phases])]
    limit = max(n + caches(graph, free, CONTEXT, sequences, rank) for rank, n in enumerate(others))
    certificate = msgspec.structs.replace(free.certificate, memory_limit=limit)
    return msgspec.structs.replace(free, certificate=certificate), limit


def test_caches_are_the_bytes_of_a_ranks_part() -> None:
    graph = tiny().graph
    alone = plan(Request(graph, Mesh()))
    assert (
        caches(graph, alone, CONTEXT, 3, 0) == 2 * 2 * 3 * 3 * CONTEXT * 8 * 4
    )  # layers, K and V, rows, heads, head size
    batch = plan(Request(graph, Mesh(dp=2), machine=EAGER_TO_SPLIT))
    assert sum(caches(graph, batch, CONTEXT, 3, rank) for rank in range(2)) == caches(graph, alone, CONTEXT, 3, 0)


def test_without_a_limit_there_are_sixteen_or_what_is_asked_for() -> None:
    graph = tiny().graph
    made = plan(Request(graph, Mesh()))
    assert rows_for(graph, made, CONTEXT, None) == DEFAULT_SEQUENCES == 16
    assert [rows_for(graph, made, CONTEXT, n) for n in (1, 2, 100)] == [1, 2, 100]
    assert [enough_for(n) for n in (1, 16, 17)] == [None, None, 17]


@pytest.mark.parametrize("mesh", ["tp=1", "tp=2", "dp=2"])
@pytest.mark.parametrize("sequences", [2, 5])
def test_a_limit_bounds_the_rows(mesh: str, sequences: int) -> None:
    graph, (made, limit) = tiny().graph, limited(mesh, sequences)
    rows = rows_for(graph, made, CONTEXT, None)
    assert sequences <= rows <= sequences + (mesh == "dp=2")  # of an uneven batch the last row is free
    assert rows_for(graph, made, CONTEXT, rows) == rows
    with pytest.raises(InputError) as raised:
        rows_for(graph, made, CONTEXT, rows + 1)
    assert (
        f"MiB with caches for {rows + 1} sequences of 512 tokens, and the plan's limit is {limit / 2**20:.1f} MiB"
        in str(raised.value)
    )
    assert f"There is room for {rows}." in str(raised.value)


def test_the_memory_of_a_planned_device_bounds_the_rows_as_a_limit_does() -> None:
    graph, (limited_plan, limit) = tiny().graph, limited("tp=2", 3)
    machine = msgspec.structs.replace(EAGER_TO_SPLIT, memory_bytes=float(limit))
    made = plan(Request(graph, Mesh(tp=2), machine=machine))
    assert rows_for(graph, made, CONTEXT, None) == rows_for(graph, limited_plan, CONTEXT, None) < DEFAULT_SEQUENCES
    small = msgspec.structs.replace(made.certificate, memory_limit=limit // 2)
    with pytest.raises(InputError, match=f"the plan's limit is {limit // 2 / 2**20:.1f} MiB"):
        rows_for(graph, msgspec.structs.replace(made, certificate=small), CONTEXT, 3)


def test_where_not_even_one_fits_a_smaller_context_is_named() -> None:
    graph, (made, _) = tiny().graph, limited("tp=2", 1)
    with pytest.raises(InputError, match="A smaller context needs less"):
        rows_for(graph, made, 8 * CONTEXT, None)


def test_the_mesh_wants_a_row_for_each_coordinate_of_dp() -> None:
    graph = tiny().graph
    made = plan(Request(graph, Mesh(dp=2), machine=EAGER_TO_SPLIT))
    with pytest.raises(InputError, match="rows for 1 sequences, the mesh needs 2"):
        rows_for(graph, made, CONTEXT, 1)
    with pytest.raises(InputError, match="rows for 0 sequences"):
        rows_for(graph, plan(Request(graph, Mesh())), CONTEXT, 0)


def test_a_number_beyond_all_reason_is_refused_at_once() -> None:
    graph, (made, _) = tiny().graph, limited("tp=2", 2)
    for sequences in (10**6, 10**12, 10**5000):
        with pytest.raises(InputError, match="sequences"):
            rows_for(graph, made, CONTEXT, sequences)
