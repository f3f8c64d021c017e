"""A plan as one page of HTML: layouts, the steps of a layer, communication, memory, and predicted time.

The page is self-contained: inline SVG and CSS, no script, and a policy that forbids it to load anything. It follows the reader's
light or dark scheme. Equal layers share a line, and at most 16 ranks are drawn. No name can become markup: all text passes through
`_visible` and jinja2's escapes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from unitp import texts
from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.cost.record import planned_machine
from unitp.explain.description import devices, devices_text
from unitp.explain.patterns import pattern
from unitp.graph.graph import Graph
from unitp.graph.values import TensorType, item_bytes
from unitp.host import writing
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.plans import Phase, Plan, require
from unitp.report.drawing import MOST_RANKS, Bar, bars, grid, shown
from unitp.report.phase_steps import Move, PhasePage, brief, phase_page


class Tensors(msgspec.Struct, frozen=True):
    """Parameters or caches with one shape and layout.

    bytes   of all of them together, on the rank that holds most
    whole   bytes of all of them without splits
    """

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
    """The communication over an axis in one call of a phase. `width`: the stroke of its line, which grows with bytes."""

    axis: str
    bytes: int
    seconds: float
    width: float
    text: str


def page(plan: CertifiedPlan, graph: Graph, machine: Machine | None = None) -> str:
    """Return the page as text. Raises PlanError if the plan is not for this graph, and MeshError if `machine` does not fit its mesh."""
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
    """Return the value of an expression without characters that XML forbids or that hide others; jinja2 then escapes it."""
    return texts.shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def save(plan: CertifiedPlan, graph: Graph, path: str | os.PathLike[str], machine: Machine | None = None) -> None:
    """Write the page to a file. Raises InputError if it cannot be written, HostError if the disk is full, and what `page` raises."""
    text = page(plan, graph, machine)
    with writing(path, "the page"):
        Path(path).write_text(text, "utf-8")


def tensors(plan: Plan, graph: Graph, phase: Phase) -> list[Tensors]:
    """Return the parameters and caches in the graph's order, equal ones together; caches have their size in `phase`."""
    held = [("weight", p.name, p.type, plan.parameters[p.name]) for p in graph.parameters]
    held += [("cache", s.input, s.type, plan.states[s.input]) for s in graph.states]
    alike: dict[tuple[str, str, TensorType, Layout], int] = {}
    for kind, name, type_, layout in held:
        key = (kind, pattern(name), type_, layout)
        alike[key] = alike.get(key, 0) + 1
    found = []
    for (kind, what, type_, layout), count in alike.items():
        shape = type_.sized(phase.sizes)
        size = item_bytes(type_.dtype) * count
        bound = layout.bind(shape, plan.mesh)
        most = max(prod(bound.local_shape(shape, rank, plan.mesh)) for rank in range(plan.mesh.size))
        drawn = bars(layout, shape, plan.mesh)
        found.append(
            Tensors(what, kind, count, shape, type_.dtype, brief(layout), drawn, most * size, prod(shape) * size)
        )
    return found


def links(moves: Sequence[Move], mesh: Mesh) -> list[Link]:
    """Return the communication over each axis, summed over its collectives."""
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
    """Return (phase, rank, bytes) of the highest peak of memory."""
    return max(((p.name, r, m.peak) for p in phases for r, m in enumerate(p.memory)), key=lambda f: f[2])


def time_text(seconds: float) -> str:
    """Return seconds as text with three figures: `753 ms`, `41.2 us`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            number = seconds / scale
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{seconds * 1e6:.2f} us" if seconds else "0"


def bytes_text(count: float) -> str:
    """Return bytes as text with three figures, in binary units: `12 B`, `34.0 KiB`, `267 MiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            number = count / scale
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{count:.0f} B"


def hues(mesh: Mesh) -> list[int]:
    """Return the hue of each drawn rank in degrees, spread evenly around the circle from blue on."""
    count = len(shown(mesh))
    return [round(210 + 360 * rank / count) % 360 for rank in range(count)]
