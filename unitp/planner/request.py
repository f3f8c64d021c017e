"""What the planner is asked for, as one value, and what is checked of it before anything is searched.

A request is complete: it has the phases that are planned for, given or by default. So the planner, its certificate and the error for
a request that nothing satisfies read the same value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from unitp.cost import Machine
from unitp.errors import MeshError, PlanError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import ROLES, Candidates
from unitp.plans import Phase

Objective = Literal["time", "memory"]


class Request(msgspec.Struct, frozen=True):
    """A graph to plan on a mesh, and what its plan must satisfy.

    phases         sizes and weights to plan for; none given: `default_phases`
    roles          the symbol that an axis splits (`dp`: batch); an axis without a role may split any dim
    machine        what the ranks are priced as; its devices' memory is a limit as well
    pins           choices fixed beforehand (`unitp.planner.problem.pin_notation` has the grammar)
    memory_limit   the most bytes that a rank may need
    objective      "memory": minimise the bytes of the rank that needs most, and the time among equals
    time_limit     seconds after which the best plan known is returned, with its gap
    allow_unused   accept an axis over which nothing can be split
    model          the name that the plan gives the model
    """

    graph: Graph
    mesh: Mesh
    phases: Sequence[Phase] = ()
    roles: Mapping[str, str] = msgspec.field(default_factory=lambda: ROLES)
    machine: Machine = Machine()
    pins: Sequence[str] = ()
    memory_limit: int | None = None
    objective: Objective = "time"
    time_limit: float | None = None
    allow_unused: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "phases", tuple(self.phases) or default_phases(self.graph, self.mesh))
        msgspec.structs.force_setattr(self, "pins", tuple(self.pins))


def default_phases(graph: Graph, mesh: Mesh) -> tuple[Phase, ...]:
    """Return the phases prefill and decode for a graph with states, else one phase `main`.

    The batch is the length of axis `dp` (1 without it); the other symbols of `main` have size 1.
    """
    batch = mesh.sizes.get("dp", 1)
    if not graph.states:
        return (Phase("main", {symbol: batch if symbol == "batch" else 1 for symbol in graph.symbols}),)
    long = {"batch": batch, "seq": 512, "cache": 512, "live": 512, "take": 1, "candidates": 1}
    prefill = {symbol: size for symbol, size in long.items() if symbol in graph.symbols}
    changed = {"seq": 1, "cache": 1024, "live": 1024}
    decode = {symbol: changed.get(symbol, size) for symbol, size in prefill.items()}
    return Phase("prefill", prefill, 1.0), Phase("decode", decode, 200.0)


def require_sizes(request: Request) -> None:
    """Raise PlanError if a phase has no size for a symbol, a weight that is not a number above 0, or fewer rows than an axis."""
    graph, mesh, phases, roles = request.graph, request.mesh, request.phases, request.roles
    for phase in phases:
        if not 0 < phase.weight < np.inf:
            raise PlanError(
                f"phase {phase.name} has weight {phase.weight}; a weight must be a finite number above 0",
                hint="Leave out a phase that should not count, or give it a small weight.",
            )
        if missing := [s for s in graph.symbols if s not in phase.sizes]:
            raise PlanError(
                f"phase {phase.name} gives no size for {', '.join(missing)}",
                hint=f"Give it one, as in {missing[0]}=1.",
            )
        for axis, symbol in roles.items():
            if phase.sizes.get(symbol, mesh.sizes.get(axis, 1)) < mesh.sizes.get(axis, 1):
                raise PlanError(
                    f"phase {phase.name} has {symbol}={phase.sizes[symbol]}, but axis {axis} splits it over {mesh.sizes[axis]}",
                    hint=f"Give it {symbol}={mesh.sizes[axis]} or more, or take a mesh with a smaller {axis}.",
                )


def require_use(candidates: Candidates, allow_unused: bool) -> None:
    """Raise MeshError if nothing can be split over an axis, unless that is allowed."""
    used = {axis for splits in candidates.splits.values() for split in splits for axis in split.axes}
    if unused := [axis for axis in candidates.axes if axis not in used and not allow_unused]:
        reasons = [f"{a} (splits only {candidates.roles[a]})" if a in candidates.roles else a for a in unused]
        raise MeshError(
            f"nothing in {candidates.graph.name} can be split over {', '.join(reasons)}",
            hint="Remove the axis from the mesh, or allow idle ranks with --allow-unused.",
        )
