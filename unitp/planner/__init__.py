"""The planner: the split of every operator and the layout of every tensor that minimise predicted time.

`plan` builds the candidates (`candidates`), prices them (`price`), and solves exactly by variable elimination
(`elimination`). Where phases together are too wide, parameters and caches are fixed in turn and each phase is solved
exactly; the bound is then what the phases would cost if each could lay out parameters for itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from unitp.cost import Machine
from unitp.cost.record import record
from unitp.errors import MeshError, PlanError
from unitp.graph.graph import Graph
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.candidates import ROLES, Candidates
from unitp.planner.descent import descend
from unitp.planner.elimination import Table, TooWideError, minimise
from unitp.planner.pins import apply as apply_pins
from unitp.planner.price import Prices
from unitp.planner.problem import SHARED, Problem
from unitp.planner.unused import unused
from unitp.plans import Certificate, Phase, PhasePlan, Plan

__all__ = ["default_phases", "plan"]


def plan(
    graph: Graph,
    mesh: Mesh,
    phases: Sequence[Phase] | None = None,
    *,
    roles: Mapping[str, str] = ROLES,
    allow_unused: bool = False,
    machine: Machine | None = None,
    model: str = "",
    pins: Sequence[str] = (),
) -> Plan:
    """The best plan for `graph` on `mesh`, weighing `phases` (default: `default_phases`), that heeds `pins`.

    `roles` says which symbol an axis splits (`dp`: batch); other axes split dims of known size. An axis that nothing can
    be split over is a MeshError, unless `allow_unused`.
    """
    begun = time.perf_counter()
    chosen = tuple(phases or default_phases(graph, mesh))
    _require_sizes(graph, mesh, chosen, roles)
    machine = machine or Machine()
    machine.require_fits(mesh)
    candidates = Candidates(graph, mesh, roles, [machine])
    _require_use(candidates, allow_unused)
    problem = Problem(graph, mesh, chosen, candidates, Prices(machine, mesh))
    apply_pins(problem, pins)
    choice, value, bound, solver = solve(problem, problem.unary)
    idle = unused(problem, choice, lambda unary: solve(problem, unary)[:2])
    certificate = Certificate(
        objective_s=value,
        lower_bound_s=bound,
        gap=(value - bound) / bound if bound else 0.0,
        solver=solver,
        elapsed_s=time.perf_counter() - begun,
        machine=machine.hash,
        pins=tuple(pins),
        priced_on=record(machine),
        unused=idle,
    )
    return _read(problem, choice, certificate, model)


def solve(problem: Problem, unary: Sequence[Table]) -> tuple[list[int], float, float, str]:
    """A choice under these prices of single choices, its value, a bound of all values, and how it was found."""
    try:
        solution = minimise(unary, problem.pairs, memo=problem.memo)
        return solution.choice, solution.value, solution.value, "elimination, exact"
    except TooWideError:
        shared = [i for i, v in enumerate(problem.variables) if v.phase == SHARED]
        found = descend(unary, problem.pairs, shared, starts(problem), memo=problem.memo)
        return found.choice, found.value, found.bound, "elimination, descent over phases"


def default_phases(graph: Graph, mesh: Mesh) -> tuple[Phase, ...]:
    """Prefill and decode for a graph with caches; else one phase, whose symbols must all be known (the batch is that of `dp`)."""
    batch = mesh.sizes.get("dp", 1)
    if not graph.states:
        return (Phase("main", {symbol: batch if symbol == "batch" else 1 for symbol in graph.symbols}),)
    prefill = {"batch": batch, "seq": 512, "cache": 512, "live": 512, "take": 1, "candidates": 1}
    decode = {**prefill, "seq": 1, "cache": 1024, "live": 1024}
    return Phase("prefill", prefill, 1.0), Phase("decode", decode, 200.0)


def starts(problem: Problem) -> list[list[int]]:
    """The variables of each phase: what descent solves one at a time."""
    return [[i for i, v in enumerate(problem.variables) if v.phase == p.name] for p in problem.phases]


def _require_sizes(graph: Graph, mesh: Mesh, phases: Sequence[Phase], roles: Mapping[str, str]) -> None:
    for phase in phases:
        if missing := [s for s in graph.symbols if s not in phase.sizes]:
            raise PlanError(f"phase {phase.name} gives no size for {', '.join(missing)}")
        for axis, symbol in roles.items():
            if phase.sizes.get(symbol, mesh.sizes.get(axis, 1)) < mesh.sizes.get(axis, 1):
                raise PlanError(
                    f"phase {phase.name} has {symbol} {phase.sizes[symbol]}, axis {axis} splits it over {mesh.sizes[axis]}",
                    hint=f"Give it {symbol}={mesh.sizes[axis]} or more, or take a mesh with a smaller {axis}.",
                )


def _require_use(candidates: Candidates, allow_unused: bool) -> None:
    used = {axis for splits in candidates.splits.values() for split in splits for axis in split.axes}
    if unused := [axis for axis in candidates.axes if axis not in used and not allow_unused]:
        reasons = [f"{a} (splits only {candidates.roles[a]})" if a in candidates.roles else a for a in unused]
        raise MeshError(
            f"nothing in {candidates.graph.name} can be split over {', '.join(reasons)}",
            hint="Take the axis out of the mesh, or allow idle ranks with --allow-unused.",
        )


def _read(problem: Problem, choice: Sequence[int], certificate: Certificate, model: str) -> Plan:
    """The plan that a choice of every variable means."""
    parameters: dict[str, Layout] = {}
    states: dict[str, Layout] = {}
    nodes: dict[str, dict[str, dict[str, Split]]] = {p.name: {} for p in problem.phases}
    values: dict[str, dict[str, Layout]] = {p.name: {} for p in problem.phases}
    for variable, chosen in zip(problem.variables, choice, strict=True):
        homes = [variable.phase] if variable.phase != SHARED else [p.name for p in problem.phases]
        if variable.layouts:
            pick = variable.layouts[chosen]
            if variable.kind == "parameter":
                parameters[variable.name] = pick
            elif variable.kind == "state":
                states[variable.name] = pick
            elif variable.kind == "value" or (variable.kind == "input" and any(pick.dims)):
                for home in homes:
                    values[home][variable.name] = pick
            elif variable.kind == "output":
                source, left = problem.source(variable.name, variable.phase)
                if Layout(left[choice[source]].dims) != pick:
                    values[variable.phase][variable.name] = pick
        elif assignment := variable.assignments[chosen]:
            for home in homes:
                nodes[home][variable.name] = dict(assignment)
    seconds = problem.seconds(choice)
    return Plan(
        graph=problem.graph.hash,
        mesh=problem.mesh,
        parameters=parameters,
        states=states,
        phases=tuple(PhasePlan(p, nodes[p.name], values[p.name], seconds[p.name]) for p in problem.phases),
        certificate=certificate,
        model=model,
    )
