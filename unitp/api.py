"""`unitp.plan`: the planner, for a model or a graph."""

from __future__ import annotations

from collections.abc import Sequence

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
) -> Plan:
    """The best plan for a model on `mesh` (default: one rank), weighing `phases` (default: prefill and decode).

    Raises MeshError where an axis has no legal use (unless `allow_unused`), PlanError where a phase lacks a size.
    """
    graph = model.graph if isinstance(model, Model) else model
    return plan_graph(graph, mesh or Mesh(), phases, allow_unused=allow_unused, model=getattr(model, "name", ""))
