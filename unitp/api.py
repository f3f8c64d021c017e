"""`unitp.plan`: the planner, for a model or a graph."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from unitp.cost import Machine
from unitp.cost.machine_file import load_machine
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
    machine: Machine | str | os.PathLike[str] | None = None,
) -> Plan:
    """The best plan for a model on `mesh` (default: one rank), weighing `phases` (default: prefill and decode).

    `machine` is what plans are priced for: a `unitp.cost.Machine`, the name of a profile, or a TOML file; the default is one
    of ranks alike. Where its devices are unlike, bounds follow their speed and memory.

    `pins` fix choices beforehand: `"blk.*.ffn_down.weight: S(1)@tp"` (`unitp.planner.pins` has the grammar). Raises MeshError
    where an axis has no legal use (unless `allow_unused`), PlanError where a phase lacks a size or gives one that the graph
    does not have, or where a pin matches nothing or cannot be satisfied, InputError for a machine that cannot be
    read, MeshError for one that does not fit the mesh.
    """
    if not isinstance(model, Model | Graph):
        raise InputError(f"{model!r} is no model", hint="Models come from unitp.load, graphs from unitp.Builder.")
    graph = model.graph if isinstance(model, Model) else model
    chosen = [complete(graph, phase) for phase in phases or ()]
    if len({phase.name for phase in chosen}) < len(chosen):
        raise PlanError(f"two phases have one name: {', '.join(phase.name for phase in chosen)}")
    found = machine if machine is None or isinstance(machine, Machine) else load_machine(machine)
    return plan_graph(
        graph,
        mesh or Mesh(),
        chosen or None,
        allow_unused=allow_unused,
        machine=found,
        model=model.name,
        pins=pins,
    )


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
