"""The choice of a token follows its written definition, and only that."""

from __future__ import annotations

import numpy as np
import pytest

from unitp.comparison.draws import possible
from unitp.engine.sampling import Sampling, choose, draw, softmax, uniform
from unitp.errors import InputError, RankError

VALUES = np.array([1.0, 3.0, 2.0, 3.0, -1.0, 0.5], np.float32)
IDS = np.arange(6)


def test_greedy_takes_the_largest_and_of_equals_the_lowest_id() -> None:
    assert choose(VALUES, IDS, Sampling(), 0, 0) == 1
    assert choose(VALUES[::-1], IDS[::-1], Sampling(), 0, 0) == 1


def test_the_order_in_which_candidates_come_does_not_matter() -> None:
    warm = Sampling(temperature=0.9, top_k=4, top_p=0.95, seed=3)
    shuffled = np.random.default_rng(0).permutation(6)
    for step in range(50):
        assert choose(VALUES, IDS, warm, 0, step) == choose(VALUES[shuffled], IDS[shuffled], warm, 0, step)


def test_frequencies_are_the_probabilities() -> None:
    warm = Sampling(temperature=2.0, seed=1)
    counts = np.bincount([choose(VALUES, IDS, warm, 0, step) for step in range(4000)], minlength=6)
    np.testing.assert_allclose(counts / 4000, softmax(VALUES.astype(np.float64) / 2), atol=0.03)


def test_top_k_keeps_the_k_largest() -> None:
    warm = Sampling(temperature=5.0, top_k=3, seed=1)
    assert {choose(VALUES, IDS, warm, 0, step) for step in range(300)} == {1, 2, 3}
    assert {choose(VALUES, IDS, Sampling(5.0, top_k=1, seed=1), 0, step) for step in range(20)} == {1}


def test_top_p_keeps_the_shortest_run_that_reaches_p_after_top_k() -> None:
    values = np.log(np.array([0.5, 0.25, 0.15, 0.1]))
    found = {
        (top_k, top_p): {choose(values, np.arange(4), Sampling(1.0, top_k, top_p, 5), 0, step) for step in range(400)}
        for top_k, top_p in [(0, 0.5), (0, 0.6), (0, 0.8), (0, 1.0), (2, 0.6), (2, 0.7)]
    }
    assert found == {
        (0, 0.5): {0},
        (0, 0.6): {0, 1},
        (0, 0.8): {0, 1, 2},
        (0, 1.0): {0, 1, 2, 3},
        (2, 0.6): {0},  # of the two that stay, the first has two thirds
        (2, 0.7): {0, 1},
    }


def test_a_tiny_top_p_keeps_one() -> None:
    assert {choose(VALUES, IDS, Sampling(1.0, top_p=1e-9, seed=2), 0, step) for step in range(30)} == {1}


def test_seed_sequence_and_step_decide_alone() -> None:
    assert uniform(7, 2, 5) == uniform(7, 2, 5)
    assert len({uniform(seed, sequence, step) for seed in range(3) for sequence in range(3) for step in range(3)}) == 27
    assert uniform((1 << 64) - 1, 0, 0) < 1.0


def test_the_number_drawn_is_that_of_philox() -> None:
    expected = np.random.Generator(np.random.Philox(key=[7, 2], counter=[5, 0, 0, 0])).random()
    assert uniform(7, 2, 5) == expected


def test_rounding_never_draws_past_the_end() -> None:
    third = np.full(3, 1 / 3)
    assert draw(third, np.array([9, 4, 6]), np.nextafter(1.0, 0.0)) == 9
    assert draw(third, np.array([9, 4, 6]), 0.0) == 4


def test_swapping_nearly_equal_values_changes_nothing() -> None:
    """Ranks that differ in the last bit order such candidates differently."""
    other = VALUES.copy()
    other[1] = np.nextafter(other[1], np.float32(9))
    other[3] = np.nextafter(other[3], np.float32(0))
    warm = Sampling(1.0, seed=11)
    assert [choose(VALUES, IDS, warm, 0, s) for s in range(200)] == [choose(other, IDS, warm, 0, s) for s in range(200)]


WAYS = [
    Sampling(),
    Sampling(0.8, seed=4),
    Sampling(0.8, top_k=5, seed=4),
    Sampling(0.8, top_p=0.9, seed=4),
    Sampling(0.8, top_k=12, top_p=0.8, seed=4),
]


@pytest.mark.parametrize("sampling", WAYS)
def test_what_an_error_can_make_of_a_choice_is_possible(sampling: Sampling) -> None:
    """Errors of full norm in random directions, and along the line between two candidates, which moves them most."""
    rng = np.random.default_rng(1)
    changed = 0
    for step in range(1500):
        values = rng.normal(size=30) * 2
        direction = rng.normal(size=30)
        if step % 2:
            direction = np.zeros(30)
            direction[rng.choice(30, 2, replace=False)] = 1, -1
        error = 0.2
        other = values + error * direction / np.linalg.norm(direction)
        allowed = possible(values, np.arange(30), sampling, 0, step, error)
        before, after = (choose(v, np.arange(30), sampling, 0, step) for v in (values, other))
        assert {before, after} <= allowed
        changed += before != after
    assert changed > 10


@pytest.mark.parametrize("sampling", WAYS)
def test_without_an_error_only_the_choice_is_possible(sampling: Sampling) -> None:
    rng = np.random.default_rng(2)
    for step in range(300):
        values = rng.normal(size=30) * 2
        assert possible(values, np.arange(30), sampling, 3, step, 1e-12) == {
            choose(values, np.arange(30), sampling, 3, step)
        }


def test_frequencies_after_top_k_and_top_p_are_the_probabilities_of_what_stays() -> None:
    warm = Sampling(temperature=1.5, top_k=4, top_p=0.9, seed=8)
    kept = {1: 3.0, 3: 3.0, 2: 2.0}  # of the four largest, these three reach nine tenths
    weights = np.exp(np.array(list(kept.values())) / 1.5)
    counts = np.bincount([choose(VALUES, IDS, warm, 1, step) for step in range(4000)], minlength=6)
    np.testing.assert_allclose(counts[list(kept)] / 4000, weights / weights.sum(), atol=0.03)
    assert counts.sum() == counts[list(kept)].sum()


def test_draws_are_uniform_over_steps_sequences_and_seeds() -> None:
    """Kolmogorov's distance to the uniform distribution, below what one honest sample of 2,000 in 10,000 exceeds."""
    of = {
        "steps": [uniform(1, 0, i) for i in range(2000)],
        "sequences": [uniform(1, i, 0) for i in range(2000)],
        "seeds": [uniform(i, 0, 0) for i in range(2000)],
    }
    for name, draws in of.items():
        distance = np.abs(np.sort(draws) - (np.arange(2000) + 0.5) / 2000).max()
        assert distance < 2.23 / np.sqrt(2000), name


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(1.0), Sampling(1.0, top_k=2), Sampling(1.0, top_p=0.5)], ids=str
)
def test_nothing_is_chosen_from_what_is_not_finite(value: float, sampling: Sampling) -> None:
    for values in ([1.0, value, 0.5], [value, 1.0, 0.5], [value] * 3):
        with pytest.raises(RankError, match=f"the model's output is {value} at new token 4 of sequence 1"):
            choose(np.array(values), np.arange(3), sampling, 1, 4)
    with pytest.raises(RankError, match="output is -inf"):
        choose(np.full(3, -np.inf), np.arange(3), sampling, 1, 4)


def test_a_masked_token_is_never_chosen() -> None:
    values = np.array([-np.inf, 1.0, -np.inf, 0.5])
    assert {choose(values, np.arange(4), Sampling(5.0, seed=1), 0, step) for step in range(100)} == {1, 3}


def test_candidates_that_are_needed() -> None:
    assert Sampling().candidates(100) == 1
    assert Sampling(top_k=9).candidates(100) == 1
    assert Sampling(1.0, top_k=9).candidates(100) == 16
    assert Sampling(1.0).candidates(100) == 100
    assert Sampling(1.0, top_k=500).candidates(100) == 100


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Sampling(temperature=-1.0, top_k=-2, top_p=0.0, seed=-1).require()
    for word in ("temperature -1.0", "top_k -2", "top_p 0.0", "seed -1"):
        assert word in str(caught.value)
    with pytest.raises(InputError, match="temperature nan"):
        Sampling(temperature=float("nan")).require()


def test_a_temperature_near_zero_is_greedy() -> None:
    values = np.random.default_rng(0).normal(size=50)
    for temperature in (1e-310, 1e-30, 1e-4):
        assert choose(values, np.arange(50), Sampling(temperature=temperature, seed=3), 0, 0) == values.argmax()
