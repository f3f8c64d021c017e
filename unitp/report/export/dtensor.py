"""Placements of parameters for `torch.distributed.tensor`: Shard(dim) or Replicate() for each axis of the mesh.

DTensor splits a dim of n rows over p coordinates as `torch.chunk` does: each part but the last has ceil(n/p) rows. Axes that share a
dim split it in the order of the mesh, each within the parts of the one before. A layout with exactly these intervals is
`Shard(dim)`. DTensor cannot express any other (rounded, by whole heads, overlapping): every rank then holds the whole tensor,
`Replicate()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from unitp.graph.graph import Graph
from unitp.layout import Interval, Layout
from unitp.mesh import Mesh
from unitp.plans import PhasePlan, Plan
from unitp.report.export import Export, Lost
from unitp.report.export.names import names
from unitp.texts import literal, shown

LIMITS = (
    "activations and KV caches: DTensor derives their placements while it runs",
    "collectives: DTensor chooses where it converts",
    "phases: a parameter has one placement for all of them",
)


class Placed(msgspec.Struct, frozen=True):
    """A parameter's global shape and its placements by axis of the mesh, as Python code. `exact`: ranks hold the plan's rows."""

    shape: tuple[int, ...]
    placements: tuple[str, ...]
    exact: bool = True


def chunked(shape: Sequence[int], layout: Layout, rank: int, mesh: Mesh) -> tuple[Interval, ...]:
    """Return the part that DTensor gives a rank if each axis shards the dim that it splits in `layout`: an interval per dim."""
    coords, found = mesh.coords(rank), []
    for size, split in zip(shape, layout.dims, strict=True):
        start, stop = 0, size
        for axis, count in mesh.axes:
            if split is not None and axis in split.axes:
                step = -(-(stop - start) // count)
                start, stop = (min(start + i * step, stop) for i in (coords[axis], coords[axis] + 1))
        found.append((start, stop))
    return tuple(found)


def misfit(shape: Sequence[int], layout: Layout, mesh: Mesh) -> str:
    """Return why DTensor cannot express a layout, or "" if it can."""
    bound = layout.bind(shape, mesh)
    for dim, split in enumerate(bound.dims):
        if split is None:
            continue
        if split.overlaps:
            return f"several ranks hold the same rows of dim {dim} ({split.rows})"
        ranks = range(mesh.size)
        if any(chunked(shape, bound, r, mesh)[dim] != split.at(r, mesh) for r in ranks):
            theirs = list(dict.fromkeys(chunked(shape, bound, r, mesh)[dim] for r in ranks))
            return (
                f"dim {dim} is split {split.rows}, but DTensor would split it {' '.join(f'{a}:{b}' for a, b in theirs)}"
            )
    return ""


def placements(layout: Layout, mesh: Mesh) -> tuple[str, ...]:
    """Return for each axis of the mesh `Shard(dim)` if the axis splits a dim, else `Replicate()`."""
    owner = {axis: dim for dim, split in enumerate(layout.dims) if split for axis in split.axes}
    return tuple(f"Shard({owner[axis]})" if axis in owner else "Replicate()" for axis, _ in mesh.axes)


def write(plan: Plan, graph: Graph, phase: PhasePlan, *, python: bool) -> Export:
    """Return the placements as JSON, or as a Python module."""
    spelled, table, lost = names(graph), {}, []
    known: dict[tuple[tuple[int, ...], Layout], str] = {}
    for name, own in spelled.items():
        shape, layout = tuple(int(d) for d in graph.parameter(name).type.shape), plan.parameters[name]
        if (shape, layout) not in known:
            known[shape, layout] = misfit(shape, layout, plan.mesh)
        if why := known[shape, layout]:
            lost.append(Lost(own, f"{why}; every rank holds all of it"))
            layout = Layout.replicated(len(shape))
        table[own] = Placed(shape, placements(layout, plan.mesh), exact=not why)
    text = _python(plan, table, lost) if python else _json(plan, table, lost)
    return Export(text, tuple(lost), LIMITS)


def _json(plan: Plan, table: dict[str, Placed], lost: Sequence[Lost]) -> bytes:
    about = {
        "format": "dtensor",
        "unitp": version("unitp"),
        "model": plan.model,
        "graph": plan.graph,
        "mesh": plan.mesh.sizes,
        "parameters": table,
        "lost": lost,
    }
    return msgspec.json.format(msgspec.json.encode(about), indent=1)


def _python(plan: Plan, table: dict[str, Placed], lost: Sequence[Lost]) -> bytes:
    reasons = {one.what: one.why for one in lost}
    about = f"Where each parameter of {plan.model or 'a model'} lies on the mesh {plan.mesh}, as unitp planned it (graph {plan.graph})."
    sizes = ", ".join(f"{literal(axis)}: {size}" for axis, size in plan.mesh.axes)
    lines = [
        literal(about),
        "",
        "from torch.distributed.tensor import Replicate, Shard",
        "",
        f"MESH = {{{sizes}}}",
        '"""`init_device_mesh(device, tuple(MESH.values()), mesh_dim_names=tuple(MESH))`."""',
        "",
        "PLACEMENTS = {",
    ]
    for name, placed in table.items():
        lines += [f"    # {shown(reasons[name])}"] if name in reasons else []
        lines.append(f"    {literal(name)}: [{', '.join(placed.placements)}],")
    return "\n".join([*lines, "}", ""]).encode()
