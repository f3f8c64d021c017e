"""A plan as one page of HTML: who holds what, what happens in a layer, what moves between ranks, memory, and predicted time.

The page needs nothing but itself: inline SVG and CSS, no script, and a policy that forbids it to load anything. It follows
the reader's light or dark scheme. Layers alike are one line; up to 16 ranks are drawn one by one. Names are text wherever
they stand: `_visible` and jinja2's escapes are the one door for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

import jinja2
import msgspec
import numpy as np
from markupsafe import Markup

from unitp import texts
from unitp.cost import Machine
from unitp.cost.record import planned_machine
from unitp.explain.description import devices, devices_text
from unitp.explain.patterns import pattern
from unitp.graph.graph import Graph
from unitp.graph.values import TensorType
from unitp.host import writing
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.plans import Phase, Plan, require
from unitp.report.drawing import MOST_RANKS, Bar, bars, grid, shown
from unitp.report.phase_steps import Move, PhasePage, brief, phase_page


class Tensors(msgspec.Struct, frozen=True):
    """Parameters or caches of one shape and layout. `bytes`: of the rank that holds most, of all of them together."""

    what: str
    kind: str
    count: int
    shape: tuple[int, ...]
    dtype: str
    layout: str
    bars: tuple[Bar, ...]
    bytes: int
    whole: int


class Link(msgspec.Struct, frozen=True):
    """What moves over an axis in one call of a phase. `width`: of its line, by bytes."""

    axis: str
    bytes: int
    seconds: float
    width: float
    text: str


def page(plan: Plan, graph: Graph, machine: Machine | None = None) -> str:
    """The page as text. Raises PlanError where the plan is not of this graph."""
    require(plan, graph)
    planned = planned_machine(plan)
    priced = machine or planned
    priced.require_fits(plan.mesh)
    phases = [phase_page(plan, graph, p.phase.name, priced) for p in plan.phases]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unitp.report"),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": time_text, "bytes": bytes_text}
    ranks, lines = grid(plan.mesh)
    largest = max(plan.phases, key=lambda p: max(p.phase.sizes.values(), default=0)).phase
    return environment.get_template("page.html.j2").render(
        plan=plan,
        title=f"{plan.model or graph.name} on {plan.mesh}",
        certificate=plan.certificate,
        machine=planned.name,
        devices=devices_text(devices(planned, plan.mesh)),
        same_prices=plan.certificate.machine in ("", priced.hash),
        hues=hues(plan.mesh),
        more_ranks=max(0, plan.mesh.size - MOST_RANKS),
        dots=ranks,
        lines=lines,
        axes=[(axis, size) for axis, size in plan.mesh.axes if size > 1],
        tensors=tensors(plan, graph, largest),
        phases=phases,
        links={p.name: links(p.moves, plan.mesh) for p in phases},
        most_memory=max(m.peak for p in phases for m in p.memory),
        peak=peak_of(phases),
    )


def _visible(value: object) -> object:
    """What an expression gives to the page: escaped by jinja2, and without characters that XML has not or that hide others."""
    return texts.shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def save(plan: Plan, graph: Graph, path: str | os.PathLike[str], machine: Machine | None = None) -> None:
    """Write the page. Raises InputError where that cannot be done, HostError where the disk is full."""
    text = page(plan, graph, machine)
    with writing(path, "the page"):
        Path(path).write_text(text, "utf-8")


def tensors(plan: Plan, graph: Graph, phase: Phase) -> list[Tensors]:
    """The parameters and caches, equal ones together, in the graph's order; caches as long as in `phase`."""
    held = [("weight", p.name, p.type, plan.parameters[p.name]) for p in graph.parameters]
    held += [("cache", s.input, s.type, plan.states[s.input]) for s in graph.states]
    alike: dict[tuple[str, str, TensorType, Layout], int] = {}
    for kind, name, type_, layout in held:
        key = (kind, pattern(name), type_, layout)
        alike[key] = alike.get(key, 0) + 1
    found = []
    for (kind, what, type_, layout), count in alike.items():
        shape = type_.sized(phase.sizes)
        size = np.dtype(type_.dtype).itemsize * count
        bound = layout.bind(shape, plan.mesh)
        most = max(prod(bound.local_shape(shape, rank, plan.mesh)) for rank in range(plan.mesh.size))
        drawn = bars(layout, shape, plan.mesh)
        found.append(
            Tensors(what, kind, count, shape, type_.dtype, brief(layout), drawn, most * size, prod(shape) * size)
        )
    return found


def links(moves: Sequence[Move], mesh: Mesh) -> list[Link]:
    """What moves over each axis, summed over its collectives."""
    found = []
    most = max((sum(m.bytes for m in moves if m.axis == axis) for axis, _ in mesh.axes), default=0)
    for axis, size in mesh.axes:
        own = [m for m in moves if m.axis == axis]
        if size == 1:
            continue
        kinds: dict[str, int] = {}
        for move in own:
            kinds[move.kind] = kinds.get(move.kind, 0) + move.count
        total = sum(m.bytes for m in own)
        text = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing moves"
        width = 1.0 + 9.0 * total / most if own and most else 0.0
        found.append(Link(axis, total, sum(m.seconds for m in own), width, text))
    return found


def peak_of(phases: Sequence[PhasePage]) -> tuple[str, int, int]:
    """(phase, rank, bytes) where most memory is needed."""
    return max(((p.name, r, m.peak) for p in phases for r, m in enumerate(p.memory)), key=lambda f: f[2])


def time_text(seconds: float) -> str:
    """Three figures, in the unit that suits: `753 ms`, `41.2 us`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            number = seconds / scale
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{seconds * 1e6:.2f} us" if seconds else "0"


def bytes_text(count: float) -> str:
    """Three figures, in binary units: `12 B`, `34.0 KiB`, `267 MiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            number = count / scale
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{count:.0f} B"


def hues(mesh: Mesh) -> list[int]:
    """The hue of each drawn rank, in degrees: they go round the circle, from blue."""
    count = len(shown(mesh))
    return [round(210 + 360 * rank / count) % 360 for rank in range(count)]
