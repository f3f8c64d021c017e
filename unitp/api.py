"""`unitp.plan`: the planner, for a model or a graph."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from unitp.errors import InputError, PlanError, did_you_mean
from unitp.frontends.model import Model
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import plan as plan_graph
from unitp.plans import Phase, Plan


def plan(
    model: Model | Graph,
    mesh: Mesh | None = None,
    phases: Sequence[Phase] | None = None,
    *,
    allow_unused: bool = False,
    pins: Sequence[str] = (),
) -> Plan:
    """The best plan for a model on `mesh` (default: one rank), weighing `phases` (default: prefill and decode).

    `pins` fix choices beforehand: `"blk.*.ffn_down.weight: S(1)@tp"` (`unitp.planner.pins` has the grammar). Raises MeshError
    where an axis has no legal use (unless `allow_unused`), PlanError where a phase lacks a size or gives one that the graph
    does not have, or where a pin matches nothing or cannot be satisfied.
    """
    if not isinstance(model, Model | Graph):
        raise InputError(f"{model!r} is no model", hint="Models come from unitp.load, graphs from unitp.Builder.")
    graph = model.graph if isinstance(model, Model) else model
    chosen = [complete(graph, phase) for phase in phases or ()]
    if len({phase.name for phase in chosen}) < len(chosen):
        raise PlanError(f"two phases have one name: {', '.join(phase.name for phase in chosen)}")
    return plan_graph(graph, mesh or Mesh(), chosen or None, allow_unused=allow_unused, model=model.name, pins=pins)


def complete(graph: Graph, phase: Phase) -> Phase:
    """A phase with what follows from its other sizes: all of the cache is live, the last position is taken, one candidate.

    Raises PlanError for a size that the graph does not have.
    """
    for name in phase.sizes:
        if name not in graph.symbols:
            raise PlanError(
                f'phase {phase.name} gives a size for "{name}", which {graph.name} does not have',
                hint=did_you_mean(name, [*graph.symbols, "weight"]),
            )
    follows = {"take": 1, "candidates": 1}
    if "cache" in phase.sizes:
        follows["live"] = phase.sizes["cache"]
    known = {name: size for name, size in follows.items() if name in graph.symbols}
    return msgspec.structs.replace(phase, sizes={**known, **phase.sizes})
