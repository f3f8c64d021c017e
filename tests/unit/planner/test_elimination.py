"""Variable elimination: order, width, forbidden choices, ties, and speed on a chain as long as a large model."""

import numpy as np
import pytest
from calls import calls

from unitp.errors import PlanError
from unitp.planner.solve.descent import Shape, descend
from unitp.planner.solve.elimination import InfeasibleError, TooWideError, minimise

NOT_EQUAL = np.where(np.eye(2, dtype=bool), np.inf, 0.0)


def test_ties_go_to_the_lowest_choice():
    assert minimise([np.zeros(3), np.zeros(2)], {(0, 1): np.zeros((3, 2))}).choice == [0, 0]


def test_tables_of_one_pair_are_added_in_either_direction():
    first = np.array([[0.0, 5.0], [3.0, 4.0]])
    both = minimise([np.zeros(2), np.zeros(2)], {(0, 1): first, (1, 0): np.array([[9.0, 0.0], [9.0, 0.0]])})
    assert (both.choice, both.value) == ([1, 0], 3.0)


def test_a_pair_of_a_variable_with_itself_is_its_own_price():
    assert minimise([np.array([1.0, 1.0])], {(0, 0): np.array([[2.0, -9.0], [-9.0, 0.0]])}).choice == [1]


def test_any_number_of_neighbours_with_one_choice_cost_no_width():
    pairs = {(0, i): np.array([[float(i)], [0.0]]) for i in range(1, 200)}
    found = minimise([np.zeros(2), *[np.zeros(1)] * 199], pairs)
    assert (found.choice[0], found.value, found.width) == (1, 0.0, 0)


def test_nothing_to_choose_costs_nothing():
    assert minimise([], {}).value == 0.0


def test_a_table_that_is_too_large_is_said_before_any_work():
    pairs = {(a, b): np.zeros((10, 10)) for a in range(8) for b in range(a)}
    with pytest.raises(TooWideError) as raised:
        minimise([np.zeros(10)] * 8, pairs)
    assert (raised.value.width, raised.value.size) == (7, 10**8)


def test_what_is_infeasible_is_named_and_no_more():
    """An odd ring of three that must all differ in two colours, hidden in a long chain."""
    n = 300
    pairs = {(i, i + 1): np.zeros((2, 2)) for i in range(n - 1)}
    pairs |= {(100, 101): NOT_EQUAL, (101, 180): NOT_EQUAL, (100, 180): NOT_EQUAL}
    with pytest.raises(InfeasibleError, match="variables 100, 101, 180 allow no choice together") as raised:
        minimise([np.zeros(2)] * n, pairs)
    assert isinstance(raised.value, PlanError)
    assert raised.value.variables == (100, 101, 180)


def test_a_variable_without_choices_is_infeasible():
    with pytest.raises(InfeasibleError) as raised:
        minimise([np.zeros(2), np.zeros(0)], {})
    assert raised.value.variables == (1,)


def test_descent_survives_a_start_that_forbids_a_block():
    """Block 0 wants the shared variable where block 1 has no choice; block 1's own wish is the answer."""
    unary = [np.zeros(2), np.array([0.0]), np.array([0.0])]
    pairs = {(0, 1): np.array([[0.0], [1.0]]), (0, 2): np.array([[np.inf], [1.0]])}
    found = descend(unary, pairs, Shape([0], [[1], [2]]))
    assert (found.choice, found.value, found.bound) == ([1, 0, 0], 2.0, 2.0)


def test_descent_says_what_is_infeasible():
    with pytest.raises(InfeasibleError):
        descend([np.zeros(2), np.full(1, np.inf)], {}, Shape([0], [[1]]))


def ladder_calls(n: int) -> int:
    """Calls for n variables: every one sees its neighbour, the one after, and one of two that everything sees."""
    rng = np.random.default_rng(0)
    edges = {(i, i + step) for i in range(2, n) for step in (1, 2) if i + step < n}
    edges |= {(i % 2, i) for i in range(2, n, 3)}
    pairs = {edge: rng.random((5, 5)) for edge in edges}
    unary = [rng.random(5) for _ in range(n)]
    assert minimise(unary, pairs).width <= 5
    return calls(lambda: minimise(unary, pairs))


def test_work_grows_with_the_number_of_variables_and_not_with_its_square():
    """Six times as many variables: linear is 6, the square 36."""
    assert ladder_calls(1500) / ladder_calls(250) < 15
