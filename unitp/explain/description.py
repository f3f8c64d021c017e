"""A plan in words and numbers: how tensors are split, over which ranks, what each phase communicates, and the predicted cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import msgspec

from unitp.certificate import CertifiedPlan, Unused
from unitp.cost import Machine
from unitp.cost.record import planned_machine, record
from unitp.explain.patterns import Places, pattern
from unitp.graph.graph import Graph
from unitp.graph.values import item_bytes
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.problem.unused_axes import whole
from unitp.plans import Plan
from unitp.program.analysis import per_call
from unitp.program.instructions import Collective, Program, Value, kind_of
from unitp.program.lower import lower
from unitp.program.memory import Memory, peaks
from unitp.program.objective import objective, predicted_seconds


class Placed(msgspec.Struct, frozen=True):
    """Tensors with one layout: their name with numbers replaced by `*`, how many they are, and the layout (`Layout.words`)."""

    what: str
    count: int
    layout: str


class Moved(msgspec.Struct, frozen=True):
    """Collectives of one kind over one axis in one call of a phase. `bytes`: the input of the rank whose input is largest."""

    phase: str
    kind: str
    axis: str
    count: int
    bytes: int


class Whole(msgspec.Struct, frozen=True):
    """Products (`count` of `of`) that a phase does not split over an axis, although it splits others over it."""

    phase: str
    axis: str
    what: str
    count: int
    of: int


class Description(msgspec.Struct, frozen=True):
    """What a plan decides and costs.

    machine    the machine that objective and seconds are of; "" for the default one
    repriced   it is not the machine that was planned for
    devices    the ranks of each device class, if there are several classes
    groups     by axis, the ranks that communicate
    memory     what each rank needs to run all phases with all outputs
    """

    mesh: str
    objective_s: float
    repriced: bool
    machine: str
    devices: dict[str, list[int]]
    groups: dict[str, list[tuple[int, ...]]]
    parameters: list[Placed]
    states: list[Placed]
    seconds: dict[str, float]
    moves: list[Moved]
    unused: tuple[Unused, ...]
    whole: list[Whole]
    memory: list[Memory] = []


def describe(plan: CertifiedPlan, graph: Graph | None = None, machine: Machine | None = None) -> Description:
    """Return what a plan decides; given its graph, also what each phase communicates, and the prices of another machine.

    Raises MeshError if the machine does not fit the plan's mesh.
    """
    priced_on = machine or planned_machine(plan)
    another = graph is not None and priced_on.hash != plan.certificate.machine and machine is not None
    if graph and another:
        plan = repriced(plan, graph, priced_on)
    moves: list[Moved] = []
    for phase in plan.phases if graph else ():
        moves += moved(lower(graph, plan, phase.phase.name, outputs=light_outputs(graph)))  # type: ignore[arg-type]
    return Description(
        mesh=str(plan.mesh),
        objective_s=plan.certificate.objective_s,
        repriced=another,
        machine=priced_on.name or ("" if priced_on == Machine() else priced_on.hash),
        devices=devices(priced_on, plan.mesh),
        groups={axis: plan.mesh.groups(axis) for axis, size in plan.mesh.axes if size > 1},
        parameters=_placed(plan.parameters.items()),
        states=_placed(plan.states.items()),
        seconds={p.phase.name: p.seconds for p in plan.phases},
        moves=moves,
        unused=plan.certificate.unused,
        whole=_whole(plan, graph) if graph else [],
        memory=peaks([lower(graph, plan, p.phase.name) for p in plan.phases]) if graph else [],
    )


def _whole(plan: Plan, graph: Graph) -> list[Whole]:
    places, nodes = Places(graph), {node.name: node for node in graph.nodes}
    found = []
    for phase in (p.phase.name for p in plan.phases):
        for axis in (axis for axis, size in plan.mesh.axes if size > 1):
            names, of = whole(plan, graph, axis, phase)
            if len(names) < of:
                counts = Counter(places.of(nodes[name]) for name in names)
                found += [Whole(phase, axis, what, count, of) for what, count in counts.items()]
    return found


def repriced(plan: CertifiedPlan, graph: Graph, machine: Machine) -> CertifiedPlan:
    """Return the same plan with the costs of its programs on another machine. The lower bound stays that of the old machine.

    Raises MeshError if the machine does not fit the plan's mesh.
    """
    machine.require_fits(plan.mesh)
    programs = [lower(graph, plan, p.phase.name) for p in plan.phases]
    seconds = [predicted_seconds(program, machine) for program in programs]
    weights = [p.phase.weight for p in plan.phases]
    certificate = msgspec.structs.replace(
        plan.certificate,
        objective_s=objective(list(zip(weights, programs, strict=True)), machine),
        machine=machine.hash,
        priced_on=record(machine),
    )
    phases = tuple(msgspec.structs.replace(p, seconds=s) for p, s in zip(plan.phases, seconds, strict=True))
    return msgspec.structs.replace(plan, phases=phases, certificate=certificate)


def devices(machine: Machine, mesh: Mesh) -> dict[str, list[int]]:
    """Return the ranks of each device class of a machine; empty if all ranks are of one class."""
    found: dict[str, list[int]] = {}
    for rank in range(mesh.size):
        found.setdefault(machine.class_of(rank), []).append(rank)
    return found if len(found) > 1 else {}


def devices_text(classes: Mapping[str, Sequence[int]]) -> str:
    """Return device classes as text: `fast: ranks 0-3; slow: ranks 4-6, 8`."""
    parts = []
    for name, numbers in classes.items():
        runs: list[list[int]] = []
        for rank in numbers:
            if runs and rank == runs[-1][1] + 1:
                runs[-1][1] = rank
            else:
                runs.append([rank, rank])
        words = _shortened([f"{a}" if a == b else f"{a}-{b}" for a, b in runs]).replace(" ", ", ")
        parts.append(f"{name}: {'rank' if len(numbers) == 1 else 'ranks'} {words}")
    return "; ".join(parts)


def light_outputs(graph: Graph) -> tuple[str, ...]:
    """Return the outputs that generation asks of a language model (candidates, not logits), or all outputs of another graph."""
    candidates = tuple(name for name in graph.outputs if name.startswith("top_"))
    return candidates or graph.outputs


def moved(program: Program) -> list[Moved]:
    """Return the collectives of a call of a program, counted by kind and axis, without those that run once, at load."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    largest: dict[Value, int] = {}  # layers are alike, and ranks are many
    for _, instruction in per_call(program):
        if not isinstance(instruction, Collective):
            continue
        value = program.values[instruction.input]
        if value not in largest:
            shapes = (value.layout.local_shape(value.shape, r, program.mesh) for r in range(program.mesh.size))
            largest[value] = max(map(prod, shapes)) * item_bytes(value.dtype)
        key = (kind_of(instruction), instruction.axis)
        counts[key] += 1
        sizes[key] += largest[value]
    return [Moved(program.phase, kind, axis, n, sizes[kind, axis]) for (kind, axis), n in sorted(counts.items())]


def _placed(layouts: Iterable[tuple[str, Layout]]) -> list[Placed]:
    found: Counter[tuple[str, str]] = Counter()
    for name, layout in layouts:
        found[pattern(name), layout.words] += 1
    return [Placed(what, count, layout) for (what, layout), count in found.items()]


def factors_text(splits: Iterable[tuple[str, Split]]) -> str:
    """Return the splits of an operator's factors as text: `k over tp[0:768 768:1536]`, or `whole`."""
    return ", ".join(f"{factor} over {split}" for factor, split in splits) or "whole"


def ranks(mesh: Mesh) -> str:
    """Return the groups of each axis as text: `tp: (0 1) (2 3)`; of many, the first ones and the last."""
    parts = []
    for axis, size in mesh.axes:
        if size > 1:
            groups = (f"({_shortened(list(map(str, group)))})" for group in mesh.groups(axis))
            parts.append(f"{axis}: {_shortened(list(groups))}")
    return "; ".join(parts) or "one rank"


def _shortened(words: list[str], most: int = 8) -> str:
    return " ".join(words if len(words) <= most else [*words[: most - 2], "...", words[-1]])
