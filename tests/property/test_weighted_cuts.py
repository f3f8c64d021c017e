"""Cuts for heterogeneous devices: they tile, keep the grain, follow the weights, nest over axes; and what is planned with them is right."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import msgspec
import numpy as np
import pytest
from budget import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitp.comparison.metrics import MEANING, relative_error
from unitp.cost import Device, Machine
from unitp.frontends.builder import Builder
from unitp.layout import Split, cuts
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.planner.choices.candidates import Candidates, head_cuts
from unitp.planner.choices.proportions import NEAR, Weighing, weighted_cuts, weighted_groups
from unitp.plans import Phase, unsplit
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.testing.models import EAGER_TO_SPLIT
from unitp.testing.random_graphs import random_graph
from unitp.testing.simulate import simulate

MESHES = [Mesh(x=2), Mesh(x=3), Mesh(x=4), Mesh(x=2, y=2), Mesh(x=2, y=3), Mesh(x=2, y=2, z=2)]
CLASSES = {
    "fast": Device({"float32": 4e11}, 6e10, 0.0),
    "slow": Device({"float32": 1e11}, 2e10, 0.0),
    "small": Device({"float32": 2e11}, 2e10, 0.0, 2000.0),
    "tiny": Device({"float32": 1e9}, 1e9, 0.0, 20.0),
}
weights_of = st.lists(st.integers(1, 1000).map(Fraction), min_size=1, max_size=9)


def machine_of(names: list[str]) -> Machine:
    return msgspec.structs.replace(EAGER_TO_SPLIT, devices={n: CLASSES[n] for n in set(names)}, ranks=tuple(names))


@st.composite
def unlike(draw, meshes=MESHES):
    """A mesh, and a machine whose ranks may be of any class."""
    mesh = draw(st.sampled_from(meshes))
    return mesh, machine_of(draw(st.lists(st.sampled_from(sorted(CLASSES)), min_size=mesh.size, max_size=mesh.size)))


def tiles(intervals, size) -> bool:
    edges = [0, *(edge for interval in intervals for edge in interval), size]
    return all(a == b for a, b in zip(edges[::2], edges[1::2], strict=True)) and edges == sorted(edges)


@given(weights=weights_of, size=st.integers(1, 500), unit=st.integers(1, 7))
def test_parts_tile_the_rows_in_whole_units_and_follow_the_weights(weights, size, unit):
    found = weighted_cuts(weights, size, unit)
    assert len(found) == len(weights)
    assert tiles(found, size)
    assert all(edge % unit == 0 or edge == size for interval in found for edge in interval)
    for (a, b), weight in zip(found, weights, strict=True):
        assert (
            abs(Fraction(b - a) - size * weight / sum(weights)) < 2 * unit
        )  # each edge is off by half a unit; the last is ragged


def test_a_device_twice_as_fast_gets_twice_as_much():
    one, two = Fraction(1), Fraction(2)
    assert weighted_cuts([two, one], 9) == ((0, 6), (6, 9))
    assert weighted_cuts([two, one], 9, 3) == ((0, 6), (6, 9))
    assert weighted_cuts([two, one, one], 8) == ((0, 4), (4, 6), (6, 8))
    assert weighted_cuts([Fraction(20), one], 9) == ((0, 9), (9, 9)), "too slow for half a head: none"


@given(weights=weights_of, inner=st.integers(1, 4), size=st.integers(1, 300), data=st.data())
def test_cuts_over_two_axes_nest(weights, inner, size, data):
    """An edge of the outer axis is an edge of both together, where outer weights are sums of inner ones."""
    fine = [w for w in weights for _ in range(inner)]
    fine = [w * data.draw(st.integers(1, 5)) for w in fine]
    coarse = [sum(fine[i : i + inner]) for i in range(0, len(fine), inner)]
    outer, both = weighted_cuts(coarse, size), weighted_cuts(fine, size)
    assert [(run[0][0], run[-1][1]) for run in (both[i : i + inner] for i in range(0, len(both), inner))] == [*outer]


@settings(deadline=None)
@given(unlike=unlike())
def test_coordinates_weigh_the_sum_of_their_ranks_or_the_slowest_of_them(unlike):
    """So the weights over two axes nest in those over the first. On three axes, only sums are used."""
    mesh, machine = unlike
    axes = tuple(mesh.sizes)
    weighing = Weighing([machine], mesh, axes, 10_000)
    for some in (s for n in range(1, len(axes) + 1) for s in combinations(axes, n)):
        count = mesh.count(some)
        found = {weights or (Fraction(1, count),) * count: bits for weights, bits in weighing.families(some).items()}
        for number, value in enumerate(weighing.values, 1):
            ranks = [[v for rank, v in enumerate(value) if mesh.flat(rank, some) == at] for at in range(count)]
            right = [shares(map(way, ranks)) for way in ((sum, min) if len(axes) < 3 else (sum,))]
            followed = [weights for weights, bits in found.items() if bits >> number & 1]
            assert all(any(near(weights, one) for one in followed) for weights in right)
            assert all(any(near(weights, one) for one in right) for weights in followed)


def shares(weights):
    weights = tuple(weights)
    return tuple(weight / sum(weights) for weight in weights)


def near(a, b) -> bool:
    return all(abs(x - y) < NEAR for x, y in zip(a, b, strict=True))


def test_devices_alike_give_even_cuts_only():
    for names in (["fast"] * 4, ["slow"] * 4):
        assert Weighing([machine_of(names)], Mesh(x=2, y=2), ("x", "y"), 1).families(("x", "y")) == {None: 1}
    # devices differ along y only: split over x both coordinates are as slow
    mixed = Weighing([machine_of(["fast", "slow"] * 2)], Mesh(x=2, y=2), ("x", "y"), 1)
    assert mixed.families(("x",)) == {None: 0b111}
    assert mixed.families(("y",)) == {
        None: 0b001,
        (Fraction(4, 5), Fraction(1, 5)): 0b010,
        (Fraction(3, 4), Fraction(1, 4)): 0b100,
    }


def test_memory_weighs_where_a_device_has_a_limit():
    pair = Weighing([machine_of(["slow", "small"])], Mesh(x=2), ("x",), 6000)
    assert (Fraction(3, 4), Fraction(1, 4)) in pair.families(("x",)), "unlimited counts as holding all 6000 bytes"


@given(weights=st.lists(st.integers(1, 50).map(Fraction), min_size=2, max_size=8), data=st.data())
def test_groups_get_whole_ranks(weights, data):
    groups = data.draw(st.integers(1, len(weights)))
    found = weighted_groups(weights, groups)
    assert len(found) == groups
    assert tiles(found, len(weights))
    assert all(b > a for a, b in found)


@given(
    weights=st.lists(st.integers(1, 50).map(Fraction), min_size=1, max_size=8),
    groups=st.integers(1, 5),
    ratio=st.integers(1, 4),
)
def test_heads_are_cut_in_the_grain_of_attention(weights, groups, ratio):
    parts, heads = len(weights), groups * ratio
    found = list(head_cuts(parts, heads, groups, tuple(weights)))
    assert len(found) == (3 if parts > groups else 2)
    assert all(tiles(cut, heads) and len(cut) == parts for cut in found)
    assert all(edge % ratio == 0 for interval in found[1] for edge in interval), "whole KV groups"
    for a, b in found[2] if parts > groups else ():
        assert a == b or a // ratio == (b - 1) // ratio, "a rank serves one group"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), unlike=unlike(MESHES[:5]))
def test_candidates_hold_the_even_cuts_first_and_weighted_ones_beside_them(seed, unlike):
    mesh, machine = unlike
    graph = random_graph(seed)
    even, weighted = Candidates(graph, mesh), Candidates(graph, mesh, machines=[machine])
    for place, splits in even.splits.items():
        assert set(splits) <= set(weighted.splits[place])
    for (name, factor), splits in weighted.splits.items():
        size = weighted.rules[name].factors[factor].size
        for split in splits:
            assert len(split.intervals) == mesh.count(split.axes)
            assert max(b for _, b in split.intervals) == size
    for node in graph.nodes:
        assert weighted.of(node, {})[0] == ()


def test_candidates_follow_memory():
    b = Builder("one product")
    x = b.input("x", "float32", (4, 8))
    graph = b.graph(b.MatMul(x, b.random("w", (8, 120), seed=1)))
    found = Candidates(graph, Mesh(tp=2), machines=[machine_of(["slow", "small"])])
    (node,) = graph.nodes
    everything, small = 8 * 120 * 4, 2000
    rows = round(120 * everything / (everything + small))
    assert Split(("tp",), ((0, rows), (rows, 120))) in found.splits[node.name, "n"]
    assert Split(("tp",), cuts(2, 120)) in found.splits[node.name, "n"]


def test_a_small_device_never_gets_more_than_fits():
    """Its share of the work would be a half by speed; a quarter of the bytes is all that it has room for."""
    b = Builder("products")
    x = b.input("x", "float32", (2, 64))
    for number in range(4):
        x = b.MatMul(
            b.Gelu(b.MatMul(x, b.random(f"up{number}", (64, 256), seed=1))),
            b.random(f"down{number}", (256, 64), seed=2),
        )
    graph = b.graph(x)
    whole = 4 * 2 * 64 * 256 * 4
    like = EAGER_TO_SPLIT.device(0)
    small = msgspec.structs.replace(like, memory_bytes=float(whole // 4))
    machine = msgspec.structs.replace(EAGER_TO_SPLIT, devices={"like": like, "small": small}, ranks=("like", "small"))
    free = plan(Request(graph, Mesh(tp=2), [Phase("main", {})], machine=EAGER_TO_SPLIT))
    made = plan(Request(graph, Mesh(tp=2), [Phase("main", {})], machine=machine))
    needs = [[peak(lower(graph, p, "main"), rank).peak for rank in range(2)] for p in (free, made)]
    assert needs[0][1] > small.memory_bytes >= needs[1][1]
    assert needs[1][1] > 0.5 * small.memory_bytes, "but it is used"


def test_a_faster_device_gets_more_of_everything():
    b = Builder("two products")
    x = b.input("x", "float32", (64, 96))
    y = b.MatMul(b.Gelu(b.MatMul(x, b.random("up", (96, 300), seed=1))), b.random("down", (300, 96), seed=2))
    graph = b.graph(y)
    machine = machine_of(["slow", "fast"])
    made = plan(Request(graph, Mesh(tp=2), [Phase("main", {})], machine=machine))
    even = plan(Request(graph, Mesh(tp=2), [Phase("main", {})], machine=EAGER_TO_SPLIT))
    assert made.parameters["up"].dims[1] == Split(("tp",), ((0, 60), (60, 300)))
    assert made.parameters["down"].dims[0] == Split(("tp",), ((0, 60), (60, 300)))
    assert even.parameters["up"].dims[1] == Split(("tp",), ((0, 150), (150, 300)))


def numbers(graph, seed):
    rng = np.random.default_rng(seed)
    types = {**graph.inputs, **{p.name: p.type for p in graph.parameters}}
    return {
        n: rng.normal(size=t.shape) if t.dtype == "float32" else rng.integers(0, 3, t.shape) for n, t in types.items()
    }


@pytest.mark.timeout(300)
@examples(60)
@given(seed=st.integers(0, 100_000), unlike=unlike(MESHES[:5]))
def test_a_plan_for_heterogeneous_devices_equals_the_unsharded_run(seed, unlike):
    mesh, machine = unlike
    roomy = {n: msgspec.structs.replace(d, memory_bytes=1e4 * d.memory_bytes) for n, d in machine.devices.items()}
    machine = msgspec.structs.replace(machine, devices=roomy)
    graph = random_graph(seed)
    made = plan(Request(graph, mesh, [Phase("main", {})], machine=machine, allow_unused=True))
    arrays = numbers(graph, seed)
    whole = simulate(lower(graph, unsplit(graph, [Phase("main", {})]), "main", dtype="float64"), arrays, arrays, arrays)
    program = lower(graph, made, "main", dtype="float64")
    check(program, graph)
    split = simulate(program, arrays, arrays, arrays)
    for a, b in zip(whole.outputs.values(), split.outputs.values(), strict=True):
        assert relative_error(b, a) <= MEANING if a.dtype.kind == "f" else np.array_equal(a, b)
