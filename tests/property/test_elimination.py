"""Elimination against brute force, on random graphs of every density, with forbidden choices and equal values."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitp.planner.solve.descent import Shape, descend
from unitp.planner.solve.elimination import InfeasibleError, evaluate, minimise


def random_problem(seed, most=7, whole=False):
    """Unary and pair tables; `whole` numbers make ties; some choices, sometimes all, are forbidden."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 5, rng.integers(1, most + 1))]

    def table(*shape):
        numbers = rng.integers(-3, 4, shape).astype(float) if whole else rng.normal(size=shape)
        return np.where(rng.random(shape) < rng.choice([0.0, 0.1, 0.4]), np.inf, numbers)

    edges = [(a, b) for a, b in product(range(len(sizes)), repeat=2) if rng.random() < 0.3]
    return [table(n) for n in sizes], {(a, b): table(sizes[a], sizes[b]) for a, b in edges}


def by_brute_force(unary, pairs):
    return min(evaluate(unary, pairs, choice) for choice in product(*(range(len(u)) for u in unary)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), whole=st.booleans())
def test_the_choice_is_as_good_as_any(seed, whole):
    unary, pairs = random_problem(seed, whole=whole)
    best = by_brute_force(unary, pairs)
    if np.isinf(best):
        with pytest.raises(InfeasibleError) as raised:
            minimise(unary, pairs)
        assert_least_conflict(unary, pairs, raised.value.variables)
    else:
        found = minimise(unary, pairs)
        assert found.value == pytest.approx(best, abs=1e-12)
        assert evaluate(unary, pairs, found.choice) == pytest.approx(best, abs=1e-12)


def assert_least_conflict(unary, pairs, variables):
    """The named variables are infeasible together, and feasible without any one of them."""

    def feasible(kept):
        place = {i: n for n, i in enumerate(kept)}
        inside = {(place[a], place[b]): t for (a, b), t in pairs.items() if a in place and b in place}
        return not kept or np.isfinite(by_brute_force([unary[i] for i in kept], inside))

    assert not feasible(variables)
    assert all(feasible([i for i in variables if i != left_out]) for left_out in variables)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_descent_is_a_choice_with_a_bound_below_the_best(seed):
    """Three shared variables and two blocks that meet only there, as parameters and phases do."""
    rng = np.random.default_rng(seed)
    shared, blocks = [0, 1, 2], [[3, 4, 5], [6, 7, 8]]
    unary = [rng.normal(size=3) for _ in range(9)]
    legal = [(a, b) for a in range(9) for b in range(a + 1, 9) if a in shared or (a < 6) == (b < 6)]
    pairs = {pair: rng.normal(size=(3, 3)) for pair in legal if rng.random() < 0.5}
    best = minimise(unary, pairs).value
    for rounds in (1, 40):
        found = descend(unary, pairs, Shape(shared, blocks), rounds=rounds)
        assert found.bound <= best + 1e-12 <= found.value + 2e-12
        assert evaluate(unary, pairs, found.choice) == pytest.approx(found.value)
