import pytest

from unitp.errors import MeshError
from unitp.mesh import Mesh


def test_ranks_run_row_major_over_the_axes():
    mesh = Mesh(dp=2, tp=3)
    assert mesh.size == 6
    assert mesh.coords(4) == {"dp": 1, "tp": 1}
    assert all(mesh.rank(mesh.coords(r)) == r for r in range(6))
    assert mesh.groups("tp") == [(0, 1, 2), (3, 4, 5)]
    assert mesh.groups("dp") == [(0, 3), (1, 4), (2, 5)]
    assert mesh.group_of(4, "dp") == (1, 4)


def test_flat_coordinates_follow_the_order_of_the_axes_given():
    mesh = Mesh(x=2, y=3)
    assert [mesh.flat(r, ("x", "y")) for r in range(6)] == list(range(6))
    assert [mesh.flat(r, ("y", "x")) for r in range(6)] == [0, 2, 4, 1, 3, 5]
    assert mesh.flat(5, ()) == 0


def test_a_mesh_is_read_as_it_is_printed():
    mesh = Mesh.parse("dp=1, tp=2")
    assert str(mesh) == "dp=1,tp=2"
    assert Mesh.parse(str(mesh)) == mesh == Mesh(dp=1, tp=2)
    assert repr(mesh) == "Mesh(dp=1, tp=2)"
    assert Mesh().size == 1


@pytest.mark.parametrize("text", ["tp", "tp=", "tp=x", "tp=0", "tp=2,tp=3", "=2", "1=2", "tp=-1"])
def test_a_mesh_that_cannot_be_read_is_refused(text):
    with pytest.raises(MeshError):
        Mesh.parse(text)


@pytest.mark.parametrize("size", [2.0, "2", True, 0])
def test_sizes_are_whole_numbers(size: object) -> None:
    with pytest.raises(MeshError, match="mesh axis tp has size"):
        Mesh(tp=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["tp=1000000", "tp=99999999999999999999", "tp=" + "9" * 5000, "dp=64,tp=64", "tp=\u0663"]
)
def test_a_mesh_beyond_all_reason_is_refused_at_once(text: str) -> None:
    with pytest.raises(MeshError, match=r"1024 ranks|NAME=SIZE"):
        Mesh.parse(text)
