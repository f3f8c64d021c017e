import pytest

from unitp.errors import PlanError
from unitp.layout import Layout, Split, cuts, owned, require
from unitp.mesh import Mesh


def test_nine_heads_over_two_ranks_are_five_and_four():
    assert cuts(2, 9) == ((0, 5), (5, 9))
    assert cuts(4, 9) == ((0, 3), (3, 5), (5, 7), (7, 9))
    assert cuts(2, 9, unit=3) == ((0, 6), (6, 9))
    assert cuts(4, 3) == ((0, 1), (1, 2), (2, 3), (3, 3))


@pytest.mark.parametrize("size", range(1, 30))
@pytest.mark.parametrize("outer,inner", [(2, 2), (2, 3), (3, 2), (4, 2), (3, 5)])
def test_cuts_over_two_axes_nest(size, outer, inner):
    fine, coarse = cuts(outer * inner, size), cuts(outer, size)
    for i, (a, b) in enumerate(coarse):
        assert (fine[i * inner][0], fine[(i + 1) * inner - 1][1]) == (a, b)


def test_a_layout_tells_each_rank_its_part():
    layout = Layout((None, Split(("tp",), ((0, 5), (5, 9)))))
    mesh = Mesh(dp=2, tp=2)
    assert [layout.local_shape((4, 9), r, mesh) for r in range(4)] == [(4, 5), (4, 4), (4, 5), (4, 4)]
    assert layout.intervals((4, 9), 3, mesh) == ((0, 4), (5, 9))
    assert str(layout) == "-,tp[0:5 5:9]"


def test_an_open_split_is_bound_to_the_size_at_hand():
    split = Split(("dp",))
    assert split.open
    assert split.bind(3, Mesh(dp=2)) == Split(("dp",), ((0, 2), (2, 3)))


def test_an_overlapped_row_belongs_to_its_first_holder():
    assert owned([(0, 2), (1, 3)]) == ((0, 2), (2, 3))
    assert owned([(0, 4), (1, 2), (2, 6)]) == ((0, 4), (2, 2), (4, 6))
    assert owned([(0, 0), (0, 3), (3, 3)]) == ((0, 0), (0, 3), (3, 3))
    assert Split(("tp",), ((0, 2), (1, 3))).overlaps
    assert not Split(("tp",), ((0, 2), (2, 3))).overlaps


@pytest.mark.parametrize(
    "layout,word",
    [
        (Layout((None,)), "dims"),
        (Layout((Split(("tq",), ((0, 2), (2, 4))), None)), "not on the mesh"),
        (Layout((Split(("tp",), ((0, 2), (2, 4))), None), ("tp",)), "2 times"),
        (Layout((Split(("tp",), ((0, 2), (3, 4))), None)), "no rank holds rows"),
        (Layout((Split(("tp",), ((0, 2), (2, 3))), None)), "no rank holds rows"),
        (Layout((Split(("tp",), ((2, 4), (0, 2))), None)), "no rank holds rows"),
        (Layout((Split(("tp",), ((0, 4), (0, 2))), None)), "out of order"),
        (Layout((Split(("tp",), ((0, 2), (2, 5))), None)), "not within"),
        (Layout((Split(("tp",), ((0, 4),)), None)), "intervals"),
        (Layout((Split(("tp",), ()), None)), "intervals"),
        (Layout((Split((), ()), None)), "needs an axis"),
    ],
)
def test_a_layout_that_is_none_is_refused_with_the_reason(layout, word):
    with pytest.raises(PlanError, match=word):
        require(layout, (4, 4), Mesh(tp=2), "x")
