"""A plan in words and numbers: what is split how, over which ranks, what moves in each phase, and what it should cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod

import msgspec
import numpy as np

from unitp.graph.graph import Graph
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.places import pattern
from unitp.plans import Plan
from unitp.program.instructions import Collective, Program, Value
from unitp.program.lower import lower
from unitp.program.memory import Memory, peaks, per_call


class Placed(msgspec.Struct, frozen=True):
    """Tensors of one layout: a name (numbers replaced by *), how many they are, and the layout in words."""

    what: str
    count: int
    layout: str


class Moved(msgspec.Struct, frozen=True):
    """Collectives of one kind in one call of a phase. `bytes`: given by the rank that gives most."""

    phase: str
    kind: str
    axis: str
    count: int
    bytes: int


class Description(msgspec.Struct, frozen=True):
    """`memory`: what each rank needs to run all phases with all outputs."""

    mesh: str
    groups: dict[str, list[tuple[int, ...]]]
    parameters: list[Placed]
    states: list[Placed]
    seconds: dict[str, float]
    moves: list[Moved]
    memory: list[Memory] = []


def describe(plan: Plan, graph: Graph | None = None) -> Description:
    """What a plan decides; with its graph, also what moves in each phase."""
    moves: list[Moved] = []
    for phase in plan.phases if graph else ():
        moves += moved(lower(graph, plan, phase.phase.name, outputs=light_outputs(graph)))  # type: ignore[arg-type]
    return Description(
        mesh=str(plan.mesh),
        groups={axis: plan.mesh.groups(axis) for axis, size in plan.mesh.axes if size > 1},
        parameters=_placed(plan.parameters.items()),
        states=_placed(plan.states.items()),
        seconds={p.phase.name: p.seconds for p in plan.phases},
        moves=moves,
        memory=peaks([lower(graph, plan, p.phase.name) for p in plan.phases]) if graph else [],
    )


def light_outputs(graph: Graph) -> tuple[str, ...]:
    """What generation asks of a language model (candidates, not logits); all outputs of any other graph."""
    candidates = tuple(name for name in graph.outputs if name.startswith("top_"))
    return candidates or graph.outputs


def moved(program: Program) -> list[Moved]:
    """The collectives of a call of a program (not what moves once, at load), counted by kind and axis."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    largest: dict[Value, int] = {}  # layers are alike, and ranks are many
    for _, instruction in per_call(program):
        if not isinstance(instruction, Collective):
            continue
        value = program.values[instruction.input]
        if value not in largest:
            shapes = (value.layout.local_shape(value.shape, r, program.mesh) for r in range(program.mesh.size))
            largest[value] = max(map(prod, shapes)) * np.dtype(value.dtype).itemsize
        key = (type(instruction).__name__, instruction.axis)
        counts[key] += 1
        sizes[key] += largest[value]
    return [Moved(program.phase, kind, axis, n, sizes[kind, axis]) for (kind, axis), n in sorted(counts.items())]


def _placed(layouts: Iterable[tuple[str, Layout]]) -> list[Placed]:
    found: Counter[tuple[str, str]] = Counter()
    for name, layout in layouts:
        found[pattern(name), words(layout)] += 1
    return [Placed(what, count, layout) for (what, layout), count in found.items()]


def words(layout: Layout) -> str:
    """`dim 1 over tp: 0:320 320:576`, or `replicated`."""
    splits = []
    for dim, split in enumerate(layout.dims):
        if split is not None:
            cut = "evenly" if split.open else " ".join(f"{a}:{b}" for a, b in split.intervals)
            splits.append(f"dim {dim} over {'*'.join(split.axes)}: {cut}")
    if layout.partial:
        splits.append(f"partial over {', '.join(layout.partial)}")
    return "; ".join(splits) or "replicated"


def ranks(mesh: Mesh) -> str:
    """Which ranks work together: `tp: (0 1) (2 3)`; of many, the first and the last."""
    parts = []
    for axis, size in mesh.axes:
        if size > 1:
            groups = (f"({_shortened(list(map(str, group)))})" for group in mesh.groups(axis))
            parts.append(f"{axis}: {_shortened(list(groups))}")
    return "; ".join(parts) or "one rank"


def _shortened(words: list[str], most: int = 8) -> str:
    return " ".join(words if len(words) <= most else [*words[: most - 2], "...", words[-1]])
