"""`unitp.plan` plans a model or a graph: it checks the arguments, completes the phases and calls the planner."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.cost.machine_file import load_machine
from unitp.errors import InputError, PlanError, did_you_mean
from unitp.frontends.model import Model
from unitp.graph.graph import Graph
from unitp.graph.stored import stored
from unitp.mesh import Mesh
from unitp.planner import Objective, Request
from unitp.planner import plan as plan_graph
from unitp.plans import Phase, phase_problem


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
    weights: str = "float32",
) -> CertifiedPlan:
    """Return the best plan for a model on `mesh` (default: one rank).

    phases         sizes and weights to plan for; by default prefill and decode
    allow_unused   accept an axis over which nothing can be split
    pins           choices fixed beforehand: `"blk.*.ffn_down.weight: S(1)@tp"` (`unitp.planner.problem.pin_notation` has the grammar)
    machine        the machine to price for: a `unitp.cost.Machine`, the name of a profile, or a TOML file; by default all ranks
                   are alike. If its devices are heterogeneous, intervals follow their speed and memory.
    memory_limit   the most bytes that a rank may need (weights, caches and the largest live set); the memory of its device is a
                   limit as well
    objective      "time", or "memory": minimise the bytes of the rank that needs most, and the time among equals
    time_limit     seconds after which the best plan known is returned; its certificate gives the gap to the bound
    weights        what weights are stored in: "float32", or "bfloat16" or "float16", which take half the memory and are widened
                   where they are read. The plan is for that storage, and sessions of it store weights so.

    Raises MeshError if nothing can be split over an axis or the machine does not fit the mesh; PlanError if a phase lacks a size
    or gives one that the graph does not have, a pin matches nothing or cannot be satisfied, or no plan fits in memory; and
    InputError if an argument, a pin or a machine file cannot be read.
    """
    if not isinstance(model, Model | Graph):
        raise InputError(f"{model!r} is not a model", hint="Models come from unitp.load, graphs from unitp.Builder.")
    graph = stored(model.graph if isinstance(model, Model) else model, weights)
    chosen = [complete(graph, phase) for phase in phases or ()]
    if len({phase.name for phase in chosen}) < len(chosen):
        raise PlanError(
            f"two phases have the same name: {', '.join(phase.name for phase in chosen)}",
            hint="Give each phase a name of its own.",
        )
    if memory_limit is not None and memory_limit < 1:
        raise InputError(f"memory_limit is {memory_limit}; it must be a number of bytes of at least 1")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit is {time_limit}; it must be a number of seconds above 0")
    machine = Machine() if machine is None else machine
    found = machine if isinstance(machine, Machine) else load_machine(machine)
    request = Request(
        graph,
        mesh or Mesh(),
        chosen,
        machine=found,
        pins=pins,
        memory_limit=memory_limit,
        objective=objective,
        time_limit=time_limit,
        allow_unused=allow_unused,
        model=model.name,
    )
    return plan_graph(request)


def complete(graph: Graph, phase: Phase) -> Phase:
    """Return a phase with default sizes added: `live` is all of the cache, `take` and `candidates` are 1.

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
