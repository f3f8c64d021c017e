"""From any layout to any other: 2,000 random conversions are right, checked, and as short as their order allows.

What is converted is the sum (or maximum) of a few whole arrays, so that partial values have parts that differ. All
numbers are whole, so right means equal.
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from unitp.graph.values import Attribute
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.program.check import check
from unitp.program.convert import steps
from unitp.program.instructions import Instruction, Local, Program, Value
from unitp.testing.random_plans import random_intervals, random_layout
from unitp.testing.simulate import simulate

MESHES = [
    Mesh(x=1),
    Mesh(x=2),
    Mesh(x=3),
    Mesh(x=4),
    Mesh(x=2, y=2),
    Mesh(x=2, y=3),
    Mesh(x=3, y=1, z=2),
    Mesh(x=2, y=2, z=2),
    Mesh(x=2, y=3, z=2),
]
CONVERSIONS, ROUNDS = 2000, 20


class Case(NamedTuple):
    """A conversion: of a tensor of `shape`, from `source` to `target`."""

    mesh: Mesh
    shape: tuple[int, ...]
    source: Layout
    target: Layout

    def __str__(self) -> str:
        return f"{self.mesh}, {list(self.shape)}: {self.source} -> {self.target}"


@cache
def random_case(seed: int) -> Case:
    """Half of the targets are made from the source: other bounds, another dim, a sum taken or not."""
    rng = np.random.default_rng(seed)
    mesh = MESHES[int(rng.integers(len(MESHES)))]
    shape = tuple(int(n) for n in rng.integers(1, 18, int(rng.integers(1, 5))))
    source = random_layout(rng, mesh, shape, partial=True)
    target = random_layout(rng, mesh, shape, partial=True)
    if rng.random() < 0.5:
        target = related(rng, mesh, shape, source)
    if source.partial and rng.random() < 0.3:
        # a partial maximum is reduced, or left partial over fewer axes: nothing makes one
        source = Layout(source.dims, source.partial, "max")
        kept = tuple(axis for axis in source.partial if axis not in target.axes and rng.random() < 0.5)
        target = Layout(target.dims, kept, "max" if kept else "sum")
    return Case(mesh, shape, source, target)


def related(rng: np.random.Generator, mesh: Mesh, shape: tuple[int, ...], layout: Layout) -> Layout:
    dims, partial = list(layout.dims), list(layout.partial)
    rng.shuffle(partial)
    for dim in rng.permutation(len(dims)):
        split, other = dims[dim], int(rng.integers(len(dims)))
        change = int(rng.integers(4))
        if split is not None and change == 0:
            dims[dim] = recut(rng, mesh, split.axes, shape[dim])
        elif split is not None and change == 1 and dims[other] is None:
            dims[dim], dims[other] = None, recut(rng, mesh, split.axes, shape[other])
        elif split is not None and change == 2:
            dims[dim] = recut(rng, mesh, split.axes[:-1], shape[dim]) if split.axes[1:] else None
        elif partial and change == 3 and not (split and split.overlaps):
            axes = (*(split.axes if split else ()), partial.pop())
            dims[dim] = finer(rng, mesh, split, axes, shape[dim])
    return Layout(tuple(dims), tuple(sorted(partial)))


def recut(rng: np.random.Generator, mesh: Mesh, axes: tuple[str, ...], size: int) -> Split:
    return Split(axes, random_intervals(rng, mesh.count(axes), size, overlap=rng.random() < 0.3))


def finer(rng: np.random.Generator, mesh: Mesh, split: Split | None, axes: tuple[str, ...], size: int) -> Split:
    """Each interval of `split` cut further over the last of `axes`."""
    parts = mesh.axis_size(axes[-1])
    cut = []
    for a, b in split.intervals if split else [(0, size)]:
        edges = [a, *sorted(int(e) for e in rng.integers(a, b + 1, parts - 1)), b]
        cut += list(itertools.pairwise(edges))
    return Split(axes, tuple(cut))


def program_of(case: Case) -> Program:
    """`parts` (one slab per coordinate over the partial axes) summed to the source layout, converted, and made whole."""
    mesh, shape, source, target = case
    whole = Layout(target.dims)
    slabs = mesh.count(source.partial)
    over = Split(source.partial, tuple((i, i + 1) for i in range(slabs))) if source.partial else None
    values = {"parts": Value("float64", (slabs, *shape), Layout((over, *source.dims)))}
    values["x"] = Value("float64", shape, source)
    names = {"d0": over} | {f"d{i + 1}": split for i, split in enumerate(source.dims)}
    reduction = "ReduceMax" if source.reduction == "max" else "ReduceSum"
    attrs: dict[str, Attribute] = {"axes": (0,), "keepdims": 0}
    made: list[Instruction] = [
        Local(reduction, ("parts",), ("x",), attrs, {factor: split for factor, split in names.items() if split})
    ]
    last = "x"
    for instruction, layout in (*steps(source, target, mesh), *steps(target, whole, mesh)):
        name = f"x@{len(values)}"
        values[name] = Value("float64", shape, layout)
        made.append(msgspec.structs.replace(instruction, input=last, output=name))
        last = name
    return Program("", mesh, "main", {}, values, ("parts",), (), (), (last,), tuple(made))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_random_conversion_gives_the_same_tensor(number: int) -> None:
    for seed in range(number, CONVERSIONS, ROUNDS):
        case = random_case(seed)
        program = program_of(case)
        check(program)
        parts = np.random.default_rng(seed).integers(-99, 99, program.values["parts"].shape).astype(float)
        reduce = np.max if case.source.reduction == "max" else np.sum
        found = simulate(program, {"parts": parts}, {})
        (value,) = found.outputs.values()
        assert np.array_equal(value, reduce(parts, axis=0)), f"seed {seed}: {case}"
        assert found.spread == 0, f"seed {seed}: ranks differ after {case}"


@cache
def conversions(seed: int) -> tuple[Case, list[Instruction], list[Layout]]:
    case = random_case(seed)
    found = steps(case.source, case.target, case.mesh)
    return case, [instruction for instruction, _ in found], [layout for _, layout in found]


def test_a_conversion_never_comes_back_to_a_layout() -> None:
    for seed in range(CONVERSIONS):
        case, _, layouts = conversions(seed)
        passed = [case.source, *layouts]
        assert len(set(passed)) == len(passed), f"seed {seed}: {case}"


def test_a_conversion_moves_data_at_most_once_over_each_axis() -> None:
    for seed in range(CONVERSIONS):
        case, instructions, _ = conversions(seed)
        axes = Counter(getattr(i, "axis", None) for i in instructions if type(i).__name__ not in ("Slice", "Mask"))
        assert all(count == 1 for count in axes.values()), f"seed {seed}: {case} by {instructions}"


def test_what_is_as_wanted_is_left_alone() -> None:
    for seed in range(CONVERSIONS):
        case = random_case(seed)
        assert steps(case.source, case.source, case.mesh) == ()


def test_the_sample_has_every_kind_of_step_and_of_layout() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(CONVERSIONS):
        case, instructions, _ = conversions(seed)
        kinds.update({type(i).__name__ for i in instructions})
        for layout in (case.source, case.target):
            splits = [split for split in layout.dims if split]
            kinds["overlapping"] += any(split.overlaps for split in splits)
            kinds["empty"] += any(a == b for split in splits for a, b in split.intervals)
            kinds["several axes"] += any(len(split.axes) > 1 for split in splits)
            kinds[f"partial {layout.reduction}"] += bool(layout.partial)
    wanted = ["Slice", "AllReduce", "ReduceScatter", "AllToAll", "AllGather", "Mask"]
    wanted += ["overlapping", "empty", "several axes", "partial sum", "partial max"]
    assert all(kinds[kind] >= 25 for kind in wanted), kinds
