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
from unitp.planner import Objective
from unitp.planner import plan as plan_graph
from unitp.plans import Phase, Plan, phase_problem


def plan(
    model: Model | Graph,
    mesh: Mesh | None = None,
    phases: Sequence[Phase] | None = None,
    *,
    allow_unused: bool = False,
    pins: Sequence[str] = (),
    machine: Machine | str | os.PathLike[str] | None = None,
    memory_limit: int | None = None,
    objective: Objective = "time",
    time_limit: float | None = None,
) -> Plan:
    """The best plan for a model on `mesh` (default: one rank), weighing `phases` (default: prefill and decode).

    `machine` is what plans are priced for: a `unitp.cost.Machine`, the name of a profile, or a TOML file; the default is one
    of ranks alike. Where its devices are unlike, bounds follow their speed and memory.

    No rank needs more bytes than `memory_limit` (weights, caches and the largest live set), nor than its device has.
    `objective`: `"time"`, or `"memory"`, as few bytes as can be on the rank that needs most, then time. After `time_limit`
    seconds the best plan known is returned; its certificate says how far from the best it may be.

    `pins` fix choices beforehand: `"blk.*.ffn_down.weight: S(1)@tp"` (`unitp.planner.problem.pins` has the grammar). Raises MeshError
    where an axis has no legal use (unless `allow_unused`) or the machine does not fit the mesh, PlanError where a phase lacks
    a size or gives one that the graph does not have, where a pin matches nothing or cannot be satisfied, or where no plan
    fits, InputError for a machine that cannot be read.
    """
    if not isinstance(model, Model | Graph):
        raise InputError(f"{model!r} is no model", hint="Models come from unitp.load, graphs from unitp.Builder.")
    graph = model.graph if isinstance(model, Model) else model
    chosen = [complete(graph, phase) for phase in phases or ()]
    if len({phase.name for phase in chosen}) < len(chosen):
        raise PlanError(f"two phases have one name: {', '.join(phase.name for phase in chosen)}")
    if memory_limit is not None and memory_limit < 1:
        raise InputError(f"memory_limit is {memory_limit}, wanted is a number of bytes from 1 on")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit is {time_limit}, wanted is a number of seconds above 0")
    found = machine if machine is None or isinstance(machine, Machine) else load_machine(machine)
    return plan_graph(
        graph,
        mesh or Mesh(),
        chosen or None,
        allow_unused=allow_unused,
        machine=found,
        model=model.name,
        pins=pins,
        memory_limit=memory_limit,
        objective=objective,
        time_limit=time_limit,
    )


def complete(graph: Graph, phase: Phase) -> Phase:
    """A phase with what follows from its other sizes: all of the cache is live, the last position is taken, one candidate.

    Raises PlanError for a size that the graph does not have, or that no dim can have.
    """
    if problem := phase_problem(phase):
        raise PlanError(problem)
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
