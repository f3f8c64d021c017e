"""Min-marginals on random problems against every choice there is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from budget import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from unitp.planner.solve.descent import Shape, descend
from unitp.planner.solve.elimination import TooWideError, evaluate, minimise
from unitp.planner.solve.marginals import Marginals, MarginalsGiven

Table = npt.NDArray[np.float64]
Pairs = dict[tuple[int, int], Table]


def random_problem(seed: int, most: int = 7) -> tuple[list[Table], Pairs]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, int(rng.integers(1, most)))
    unary = [rng.random(n) for n in sizes]
    for table in unary:
        if len(table) > 1 and rng.random() < 0.2:
            table[0] = np.inf
    pairs = {}
    for a, b in itertools.combinations(range(len(sizes)), 2):
        if rng.random() < 0.4:
            pairs[a, b] = rng.random((sizes[a], sizes[b]))
            pairs[a, b][rng.random(pairs[a, b].shape) < 0.1] = np.inf
    return unary, pairs


def by_brute_force(unary: Sequence[Table], pairs: Pairs) -> list[Table]:
    found = [np.full(len(u), np.inf) for u in unary]
    for choice in itertools.product(*(range(len(u)) for u in unary)):
        value = evaluate(unary, pairs, choice)
        for i, x in enumerate(choice):
            found[i][x] = min(found[i][x], value)
    return found


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**6))
def test_marginals_are_those_of_all_choices(seed: int) -> None:
    unary, pairs = random_problem(seed)
    wanted = by_brute_force(unary, pairs)
    if np.isinf(wanted[0]).all():
        return
    found = Marginals(unary, pairs)
    assert found.value == pytest.approx(min(wanted[0]))
    for i, table in enumerate(wanted):
        np.testing.assert_allclose(found[i], table, rtol=1e-12)
        for x in np.flatnonzero(np.isfinite(table)):
            best = found.best(i, int(x))
            assert best[i] == x
            assert evaluate(unary, pairs, best) == pytest.approx(table[x], rel=1e-12)


@examples(200)
@given(st.integers(0, 10**6))
def test_marginals_with_shared_choices_given_can_be_reached_and_are_no_better_than_exact(seed: int) -> None:
    """Two shared variables and two blocks: what is told is the value of a choice, exact within a block."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 4, 8)
    unary = [rng.random(n) for n in sizes]
    shared, blocks = [0, 1], [[2, 3, 4], [5, 6, 7]]
    edges = [(0, 2), (1, 3), (2, 3), (3, 4), (0, 5), (1, 7), (5, 6), (6, 7), (0, 1)]
    pairs = {(a, b): rng.random((sizes[a], sizes[b])) for a, b in edges}
    choice = descend(unary, pairs, Shape(shared, blocks)).choice
    exact, found = Marginals(unary, pairs), MarginalsGiven(unary, pairs, blocks, choice)
    assert found.value == pytest.approx(evaluate(unary, pairs, choice))
    for i, size in enumerate(sizes):
        for x in range(size):
            best = found.best(i, x)
            assert best[i] == x
            assert evaluate(unary, pairs, best) == pytest.approx(found[i][x], rel=1e-12)
            assert found[i][x] >= exact[i][x] - 1e-12
            assert all(best[j] == choice[j] for j in shared if j != i)
    assert minimise(unary, pairs).value <= found.value + 1e-12


def test_what_would_be_too_wide_is_refused_before_any_work() -> None:
    unary = [np.zeros(10)] * 8
    pairs = {(a, b): np.zeros((10, 10)) for a, b in itertools.combinations(range(8), 2)}
    with pytest.raises(TooWideError):
        Marginals(unary, pairs)
