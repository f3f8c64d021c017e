"""The planner: the split of every operator and the layout of every tensor that minimise predicted time within memory.

`plan` builds the candidates (`choices`), prices them (`prices`, `problem`) and takes the fastest choice (`fastest`): exactly by
variable elimination (`solve`) if the treewidth is low enough, else by descent with a lower bound. Among the choices whose time is
within 0.1 % of the fastest, it takes the one that holds the fewest bytes (`tie_break`). A memory limit is a side constraint
(`within_memory`). The certificate of a plan gives its cost, a lower bound on the cost of every plan, and how it was found.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from unitp.certificate import Certificate, CertifiedPlan, certified
from unitp.cost import Machine
from unitp.cost.record import record
from unitp.errors import MeshError, PlanError
from unitp.graph.graph import Graph
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import ROLES, Candidates, parameter_bytes
from unitp.planner.fastest import Found, Search
from unitp.planner.no_fit import no_room
from unitp.planner.prices.work import Prices
from unitp.planner.problem.blocks import FEW, instead, shape_of
from unitp.planner.problem.one_layout import WORTH, one_layout
from unitp.planner.problem.pins import apply as apply_pins
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.unused_axes import unused
from unitp.planner.problem.variables import SHARED
from unitp.planner.tie_break import Frugal
from unitp.planner.within_memory import Limited, NoFitError
from unitp.plans import Phase, PhasePlan, Plan
from unitp.program.lower import lower
from unitp.program.memory import Memory, peaks

__all__ = ["Objective", "default_phases", "plan"]

Objective = Literal["time", "memory"]


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
    memory_limit: int | None = None,
    objective: Objective = "time",
    time_limit: float | None = None,
) -> CertifiedPlan:
    """Return the fastest plan for `graph` on `mesh` that satisfies `pins` and fits in memory.

    The time is the sum over `phases` (default: `default_phases`) of seconds times weight. Among the plans within 0.1 % of the
    least time, the one that holds the fewest bytes of parameters and states is returned.

    roles          the symbol that an axis splits (`dp`: batch); an axis without a role may split any dim
    allow_unused   accept an axis over which nothing can be split
    memory_limit   the most bytes that a rank may need; the memory of its device in `machine` is a limit as well
    objective      "memory": minimise the bytes of the rank that needs most, and the time among equals
    time_limit     seconds after which the best plan known is returned, with its gap

    Raises MeshError if nothing can be split over an axis or the mesh does not fit `machine`, InputError if a pin cannot be
    read, and PlanError if a pin cannot be satisfied, a phase is incomplete, or no plan fits in memory.
    """
    begun = time.perf_counter()
    deadline = begun + (np.inf if time_limit is None else time_limit)
    chosen = tuple(phases or default_phases(graph, mesh))
    _require_sizes(graph, mesh, chosen, roles)
    machine = machine or Machine()
    machine.require_fits(mesh)
    candidates = Candidates(graph, mesh, roles, [machine])
    _require_use(candidates, allow_unused)
    prices = Prices(machine, mesh)
    problem = _posed(chosen, candidates, prices, pins)
    budgets = _budgets(mesh, machine, memory_limit)
    several = _is_several(_posed(chosen, candidates, prices, ()), deadline) if pins else None
    try:
        found = _solve(problem, budgets, objective, deadline, several)
        worth = objective == "time" and not found.proven and (found.narrow or len(problem.variables) <= FEW)
        if worth and time.perf_counter() < deadline:  # once more, with variables for copies that readers share
            problem = _posed(chosen, candidates, prices, pins, problem.worth_copying())
            found = _solve(problem, budgets, objective, deadline, several)
    except NoFitError as error:
        free = [axis for axis in mesh.sizes if axis not in roles]

        def fits(larger: Mesh) -> bool:
            if machine.ranks:
                return False  # the machine file does not describe further ranks
            try:
                posed = _posed(chosen, Candidates(graph, larger, roles, [machine]), Prices(machine, larger), pins)
            except PlanError:  # a pin cannot be satisfied on the larger mesh
                return False
            return _fits(posed, memory_limit)

        raise no_room(error, graph.name, mesh, budgets, free, parameter_bytes(graph), fits) from None
    elapsed = time.perf_counter() - begun
    certificate = Certificate(
        objective_s=found.value,
        lower_bound_s=found.bound,
        gap=found.gap,
        fastest_s=found.best,
        any_bound_s=found.any_bound if np.isfinite(found.any_bound) else 0.0,
        held_bytes=problem.held(found.choice) / mesh.size,
        held_bound_bytes=found.least_held / mesh.size,
        solver=found.solver,
        elapsed_s=elapsed,
        machine=machine.hash,
        pins=tuple(pins),
        objective=objective,
        memory_limit=memory_limit,
        peak_bytes=found.peak_bytes,
        bound_bytes=found.bound_bytes,
        priced_on=record(machine),
        unused=unused(problem, found.choice, instead(problem)) if objective == "time" else (),
    )
    return certified(_read(problem, found.choice, model), certificate)


def _posed(
    phases: Sequence[Phase],
    candidates: Candidates,
    prices: Prices,
    pins: Sequence[str],
    copies: Mapping[tuple[str, str, str], int] | None = None,
) -> Problem:
    """Return the problem that satisfies the pins, with prices that are lower bounds (`Problem.relax`)."""
    problem = Problem(candidates.graph, candidates.mesh, phases, candidates, prices, copies=copies)
    apply_pins(problem, pins)
    problem.relax()
    return problem


def _solve(
    problem: Problem, budgets: Sequence[float], objective: Objective, deadline: float, several: bool | None
) -> Found:
    """Return the best choice, with or without a memory limit. `several`: may parameters have several layouts; None: undecided."""
    shape = shape_of(problem)
    several = False if objective == "memory" else several
    search, fastest = _fastest(problem, deadline, several)
    found = Frugal(problem, search, fastest, deadline).found() if objective == "time" else fastest
    if objective == "time" and not np.isfinite(budgets).any():
        return found
    limited = Limited(problem, shape, budgets, lambda choice: memory_of(problem, choice), deadline)
    return limited.least(found) if objective == "memory" else limited.solve(found, fastest)


def _fastest(problem: Problem, deadline: float, several: bool | None) -> tuple[Search, Found]:
    """Return the search and the fastest choice; afterwards `problem.pairs` forbids the choices that were not allowed.

    several   True: a parameter may have several layouts. False: it has one. None: it may have several if that saves enough time.
    """
    free, problem.pairs = problem.pairs, one_layout(problem)
    search = Search(problem.unary, problem.pairs, shape_of(problem), problem.memo, deadline=deadline)
    bound = search.bound(problem.unary, free)

    def least() -> Found:
        found = search.least(problem.unary, problem.pairs)
        return msgspec.structs.replace(found.judged(problem.value(found.choice)), any_bound=min(bound, found.bound))

    if several:
        problem.pairs = free
    found = least()
    if several is None and found.value > bound * (1 + WORTH):
        once, problem.pairs = problem.pairs, free
        if found.value > (other := least()).value * (1 + WORTH):
            return search, other
        problem.pairs = once
    return search, found


def _is_several(problem: Problem, deadline: float) -> bool:
    """Say whether parameters may have several layouts. It is decided without pins, so that adding a pin cannot speed up a plan."""
    free = problem.pairs
    _fastest(problem, deadline, None)
    return problem.pairs is free


def _budgets(mesh: Mesh, machine: Machine, memory_limit: int | None) -> list[float]:
    limit = np.inf if memory_limit is None else memory_limit
    return [min(limit, machine.device(rank).memory_bytes) for rank in range(mesh.size)]


def _fits(problem: Problem, memory_limit: int | None) -> bool:
    """Say whether a quick search finds a plan that fits."""
    shape, budgets = shape_of(problem), _budgets(problem.mesh, problem.prices.machine, memory_limit)
    problem.pairs = one_layout(problem)
    search = Search(problem.unary, problem.pairs, shape, problem.memo, deadline=0.0)
    found = search.least(problem.unary, problem.pairs)
    limited = Limited(problem, shape, budgets, lambda choice: memory_of(problem, choice))
    return all(peak <= most for peak, most in zip(limited.smallest(found).peaks, budgets, strict=True))


def memory_of(problem: Problem, choice: Sequence[int]) -> list[Memory]:
    """Return the memory that each rank needs, measured on the programs lowered from a choice."""
    made = _read(problem, choice)
    return peaks([lower(problem.graph, made, phase.name) for phase in problem.phases])


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


def _require_sizes(graph: Graph, mesh: Mesh, phases: Sequence[Phase], roles: Mapping[str, str]) -> None:
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


def _require_use(candidates: Candidates, allow_unused: bool) -> None:
    used = {axis for splits in candidates.splits.values() for split in splits for axis in split.axes}
    if unused := [axis for axis in candidates.axes if axis not in used and not allow_unused]:
        reasons = [f"{a} (splits only {candidates.roles[a]})" if a in candidates.roles else a for a in unused]
        raise MeshError(
            f"nothing in {candidates.graph.name} can be split over {', '.join(reasons)}",
            hint="Remove the axis from the mesh, or allow idle ranks with --allow-unused.",
        )


def _read(problem: Problem, choice: Sequence[int], model: str = "") -> Plan:
    """Return the plan that a choice of every variable stands for."""
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
        model=model,
    )
