"""How two plans differ: in layouts, communication and predicted cost, with one line for all equal layers.

Plans for the same graph are compared in full. Plans for different graphs are compared by tensors with the same name and by
communication. Plans that have no tensor name in common are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.errors import PlanError
from unitp.explain.description import factors_text, light_outputs, moved, repriced
from unitp.explain.patterns import Places, pattern
from unitp.graph.graph import Graph
from unitp.layout import Layout, Split
from unitp.program.lower import lower
from unitp.program.memory import peak

T = TypeVar("T")


class Changed(msgspec.Struct, frozen=True):
    """Tensors or operators of one label whose layout or split differs between plans `a` and `b`. `phase` "": all phases."""

    what: str
    kind: str
    phase: str
    count: int
    a: str
    b: str


class MovedBoth(msgspec.Struct, frozen=True):
    """The count and bytes of collectives of one kind over one axis, in one call of a phase, in each plan."""

    phase: str
    kind: str
    axis: str
    count_a: int
    count_b: int
    bytes_a: int
    bytes_b: int


class Compared(msgspec.Struct, frozen=True):
    """One number of each plan."""

    what: str
    a: float
    b: float


class Difference(msgspec.Struct, frozen=True):
    """How two plans differ.

    seconds   of the objective, and of one call of each phase
    memory    by phase, the bytes of the rank that needs most
    notes     what could not be compared, and why
    """

    same: bool
    changes: list[Changed]
    moves: list[MovedBoth]
    seconds: list[Compared]
    memory: list[Compared]
    notes: list[str]


def difference(
    a: CertifiedPlan,
    b: CertifiedPlan,
    graph_a: Graph | None = None,
    graph_b: Graph | None = None,
    machine: Machine | None = None,
) -> Difference:
    """Return how `a` and `b` differ; communication and memory only if both graphs are given.

    machine   price both plans on it, which takes both graphs

    Raises PlanError if the plans have no tensor name in common or `machine` is given without graphs, and MeshError if the machine
    does not fit a mesh.
    """
    if machine is not None:
        if graph_a is None or graph_b is None:
            raise PlanError(
                "pricing plans on another machine needs their models", hint="Say where the model is with --model MODEL."
            )
        a, b = repriced(a, graph_a, machine), repriced(b, graph_b, machine)
    one_graph = a.graph == b.graph
    if not one_graph and not {*a.parameters, *a.states} & {*b.parameters, *b.states}:
        raise PlanError(
            f"the plans cannot be compared: one is for {_model(a)}, the other for {_model(b)}, "
            "and these have no weight or cache with the same name",
            hint="Compare plans of one model, or of models whose weights have the same names.",
        )
    phases = [p.phase.name for p in a.phases if p.phase.name in {q.phase.name for q in b.phases}]
    places = Places(graph_a) if graph_a is not None and one_graph else None
    changes = list(_changes(a, b, phases, places))
    moves, memory = _programs(a, b, graph_a, graph_b, phases)
    seconds = [Compared("objective", a.certificate.objective_s, b.certificate.objective_s)]
    seconds += [Compared(name, a.phase(name).seconds, b.phase(name).seconds) for name in phases]
    notes = list(_notes(a, b))
    same = not changes and not notes
    if graph_a is None or graph_b is None:
        notes.append("communication and memory are compared only if the model is given (--model)")
    return Difference(same, changes, moves, seconds, memory, notes)


def _changes(a: CertifiedPlan, b: CertifiedPlan, phases: list[str], places: Places | None) -> Iterator[Changed]:
    label: Callable[[str], str] = places.label if places else pattern
    yield from _changed("parameter", "", a.parameters, b.parameters, _held, label)
    yield from _changed("state", "", a.states, b.states, _held, label)
    for name in phases if a.graph == b.graph else ():
        one, other = a.phase(name), b.phase(name)
        # a plan lists only what is split: another operator runs whole, another value has the layout that its operator produces
        yield from _changed(
            "operator", name, _both(one.nodes, other.nodes, {}), _both(other.nodes, one.nodes, {}), _factors, label
        )
        yield from _changed("value", name, one.values, other.values, _held, label)


def _both(own: Mapping[str, T], other: Mapping[str, T], default: T) -> dict[str, T]:
    return {**dict.fromkeys(other, default), **own}


def _changed(
    kind: str, phase: str, a: Mapping[str, T], b: Mapping[str, T], text: Callable[[T], str], label: Callable[[str], str]
) -> Iterator[Changed]:
    """Yield what both plans have, but in different layouts or splits; places with equal labels count as one."""
    found: dict[tuple[str, str, str], int] = {}
    for name in a:
        if name in b and a[name] != b[name]:
            key = (label(name), text(a[name]), text(b[name]))
            found[key] = found.get(key, 0) + 1
    yield from (Changed(what, kind, phase, count, one, other) for (what, one, other), count in found.items())


def _held(layout: Layout) -> str:
    return layout.words


def _factors(splits: Mapping[str, Split]) -> str:
    return factors_text(sorted(splits.items()))


def _programs(
    a: CertifiedPlan, b: CertifiedPlan, graph_a: Graph | None, graph_b: Graph | None, phases: list[str]
) -> tuple[list[MovedBoth], list[Compared]]:
    if graph_a is None or graph_b is None:
        return [], []
    moves: list[MovedBoth] = []
    memory: list[Compared] = []
    for name in phases:
        programs = [lower(g, p, name, outputs=light_outputs(g)) for g, p in ((graph_a, a), (graph_b, b))]
        counts = [{(m.kind, m.axis): (m.count, m.bytes) for m in moved(program)} for program in programs]
        for kind, axis in sorted(counts[0] | counts[1]):
            (n, size), (m, other) = (c.get((kind, axis), (0, 0)) for c in counts)
            moves.append(MovedBoth(name, kind, axis, n, m, size, other))
        most = [float(max(peak(p, rank).peak for rank in range(p.mesh.size))) for p in programs]
        memory.append(Compared(name, *most))
    return moves, memory


def _notes(a: CertifiedPlan, b: CertifiedPlan) -> Iterator[str]:
    if a.graph != b.graph:
        yield f"the plans are for different graphs ({_model(a)}, {_model(b)}): only tensors with the same name are compared"
        for one, other, which in ((a, b, "first"), (b, a, "second")):
            if alone := sorted(map(pattern, {*one.parameters, *one.states} - {*other.parameters, *other.states})):
                yield f"only in the {which}: {', '.join(dict.fromkeys(alone))}"
    if a.mesh != b.mesh:
        yield f"the plans are for different meshes ({a.mesh}; {b.mesh}): intervals differ if the number of ranks does"
    if a.certificate.machine != b.certificate.machine:
        yield "the plans were priced on different machines: their seconds are not comparable"
    if a.certificate.pins != b.certificate.pins:
        yield f"pins of the first: {_pins(a)}; of the second: {_pins(b)}"
    sizes = [{p.phase.name: p.phase for p in plan.phases} for plan in (a, b)]
    for name in dict.fromkeys([*sizes[0], *sizes[1]]):
        if name not in sizes[0] or name not in sizes[1]:
            yield f"only the {'first' if name in sizes[0] else 'second'} has phase {name}"
        elif sizes[0][name] != sizes[1][name]:
            yield f"phase {name} has different sizes or weights: its seconds are not comparable"


def _pins(plan: CertifiedPlan) -> str:
    return ", ".join(f'"{pin}"' for pin in plan.certificate.pins) or "none"


def _model(plan: CertifiedPlan) -> str:
    return f"{plan.model or 'a model'}, graph {plan.graph}"
