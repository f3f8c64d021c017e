"""The larger mesh that is named where nothing fits."""

from __future__ import annotations

import pytest

from unitp.mesh import Mesh
from unitp.planner.no_fit import MOST_RANKS, TIMES, larger_mesh


@pytest.mark.parametrize("needed", [3, 4, 5, 7, 33, 36, 47])
@pytest.mark.parametrize("ranks", [0.5, 2.1])
def test_it_is_the_smallest_where_longer_is_never_worse(needed: int, ranks: float) -> None:
    tried: list[int] = []

    def fits(mesh: Mesh) -> bool:
        tried.append(mesh.size)
        return mesh.size >= needed

    assert larger_mesh(Mesh(tp=2), ["tp"], ranks, fits) == Mesh(tp=needed)
    assert len(tried) == len(set(tried)) <= len(TIMES) + needed.bit_length()


def test_what_cannot_hold_the_weights_is_not_tried() -> None:
    tried: list[Mesh] = []

    def fits(mesh: Mesh) -> bool:
        tried.append(mesh)
        return True

    assert larger_mesh(Mesh(dp=2, tp=2), ["tp"], 33.0, fits) == Mesh(dp=2, tp=17)
    assert tried == [Mesh(dp=2, tp=17)]


def test_an_axis_that_is_bound_to_the_batch_stays_and_another_is_added() -> None:
    assert larger_mesh(Mesh(dp=2), [], 1.0, lambda mesh: mesh.size >= 6) == Mesh(dp=2, tp=3)


def test_meshes_beyond_all_reason_are_not_named() -> None:
    assert larger_mesh(Mesh(tp=2), ["tp"], 1.0, lambda mesh: False) is None
    assert larger_mesh(Mesh(tp=2), ["tp"], MOST_RANKS + 1.0, lambda mesh: True) is None
