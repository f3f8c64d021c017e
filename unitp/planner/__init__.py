"""The planner: the split of every operator and the layout of every tensor that minimise predicted time within memory.

`plan` builds the candidates (`choices`), prices them (`prices`, `problem`) and takes the fastest choice (`fastest`): exactly by
variable elimination (`solve`) if the treewidth is low enough, else by descent with a lower bound. Among the choices whose time is
within 0.1 % of the fastest, it takes the one that holds the fewest bytes (`tie_break`). A memory limit is a side constraint
(`within_memory`). The certificate of a plan gives its cost, a lower bound on the cost of every plan, and how it was found.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from unitp.certificate import Certificate, CertifiedPlan, certified
from unitp.cost import Machine
from unitp.cost.record import record
from unitp.errors import PlanError
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import Candidates, parameter_bytes
from unitp.planner.fastest import Found, Search
from unitp.planner.judged import NoFitError
from unitp.planner.no_fit import no_room
from unitp.planner.prices.work import Prices
from unitp.planner.problem.blocks import FEW, instead, shape_of
from unitp.planner.problem.one_layout import WORTH, one_layout
from unitp.planner.problem.pins import apply as apply_pins
from unitp.planner.problem.problem import Problem, posed
from unitp.planner.problem.unused_axes import unused
from unitp.planner.problem.variables import SHARED
from unitp.planner.request import Objective, Request, default_phases, require_sizes, require_use
from unitp.planner.tie_break import Frugal
from unitp.planner.within_memory import Limited
from unitp.plans import Phase, PhasePlan, Plan
from unitp.program.lower import lower
from unitp.program.memory import Memory, peaks

__all__ = ["Objective", "Request", "default_phases", "plan"]


def plan(request: Request) -> CertifiedPlan:
    """Return the fastest plan for the graph of a request on its mesh that satisfies its pins and fits in memory.

    The time is the sum over phases of seconds times weight. Among the plans within 0.1 % of the least time, the one that holds the
    fewest bytes of parameters and states is returned.

    Raises MeshError if nothing can be split over an axis or the mesh does not fit the machine, InputError if a pin cannot be
    read, and PlanError if a pin cannot be satisfied, a phase is incomplete, or no plan fits in memory.
    """
    begun = time.perf_counter()
    deadline = begun + (np.inf if request.time_limit is None else request.time_limit)
    require_sizes(request)
    request.machine.require_fits(request.mesh)
    candidates = Candidates(request.graph, request.mesh, request.roles, [request.machine])
    require_use(candidates, request.allow_unused)
    prices = Prices(request.machine, request.mesh)
    try:
        problem, found = _found(request, candidates, prices, deadline)
    except NoFitError as error:
        raise _no_room(request, error) from None
    certificate = _certificate(request, problem, found, time.perf_counter() - begun)
    return certified(_read(problem, found.choice, request.model), certificate)


def _found(request: Request, candidates: Candidates, prices: Prices, deadline: float) -> tuple[Problem, Found]:
    """Return the best choice that the search finds, and the problem that it is a choice of."""
    phases, pins, objective = request.phases, request.pins, request.objective
    problem = _pinned(phases, candidates, prices, pins)
    budgets = _budgets(request.mesh, request.machine, request.memory_limit)
    several = _is_several(phases, candidates, prices, deadline) if pins else None
    allowed, found, decided = _solve(problem, budgets, objective, deadline, several)
    worth = objective == "time" and not (found.proven and decided) and _is_small(problem, found)
    if worth and time.perf_counter() < deadline:  # once more, with variables for copies that readers share
        problem = _pinned(phases, candidates, prices, pins, problem.worth_copying())
        allowed, found, _ = _solve(problem, budgets, objective, deadline, several)
    return allowed, found


def _is_small(problem: Problem, found: Found) -> bool:
    """Say whether the problem can have more variables, for copies that readers share."""
    return found.exact or len(problem.variables) <= FEW


def _no_room(request: Request, error: NoFitError) -> PlanError:
    """Return the error for a request that no plan satisfies, with a limit and a mesh that would do."""
    graph, machine = request.graph, request.machine

    def fits(larger: Mesh) -> bool:
        if machine.ranks:
            return False  # the machine file does not describe further ranks
        candidates = Candidates(graph, larger, request.roles, [machine])
        try:
            larger_problem = _pinned(request.phases, candidates, Prices(machine, larger), request.pins)
        except PlanError:  # a pin cannot be satisfied on the larger mesh
            return False
        return _fits(larger_problem, request.memory_limit)

    budgets = _budgets(request.mesh, machine, request.memory_limit)
    free = [axis for axis in request.mesh.sizes if axis not in request.roles]
    return no_room(error, graph.name, request.mesh, budgets, free, parameter_bytes(graph), fits)


def _certificate(request: Request, problem: Problem, found: Found, elapsed: float) -> Certificate:
    """Return what is known of a choice that was found within `elapsed` seconds."""
    mesh, machine, objective = request.mesh, request.machine, request.objective
    return Certificate(
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
        pins=tuple(request.pins),
        objective=objective,
        memory_limit=request.memory_limit,
        peak_bytes=found.peak_bytes,
        bound_bytes=found.bound_bytes,
        priced_on=record(machine),
        unused=unused(problem, found.choice, instead(problem)) if objective == "time" else (),
    )


def _pinned(
    phases: Sequence[Phase],
    candidates: Candidates,
    prices: Prices,
    pins: Sequence[str],
    copies: Mapping[tuple[str, str, str], int] | None = None,
) -> Problem:
    """Return the problem that satisfies the pins, with prices that are lower bounds (`Problem.relaxed`)."""
    problem = posed(candidates.graph, candidates.mesh, phases, candidates, prices, copies=copies)
    return apply_pins(problem, pins).relaxed()


def _solve(
    problem: Problem, budgets: Sequence[float], objective: Objective, deadline: float, several: bool | None
) -> tuple[Problem, Found, bool]:
    """Return the best choice, with or without a memory limit, the problem with the choices that were allowed, and `decided`.

    several   may parameters have several layouts; None: undecided
    """
    shape = shape_of(problem)
    several = False if objective == "memory" else several
    problem, search, fastest, decided = _fastest(problem, deadline, several)
    found = Frugal(problem, search, fastest, deadline).found() if objective == "time" else fastest
    if objective == "time" and not np.isfinite(budgets).any():
        return problem, found, decided
    limited = Limited(problem, shape, budgets, lambda choice: memory_of(problem, choice), deadline)
    return problem, limited.least(found) if objective == "memory" else limited.solve(found, fastest), decided


def _fastest(problem: Problem, deadline: float, several: bool | None) -> tuple[Problem, Search, Found, bool]:
    """Return the problem with the choices that were allowed, the search, the fastest choice, and `decided`.

    several   True: a parameter may have several layouts. False: it has one. None: it may have several if that saves enough time.
    decided   whether that is certain. It is not if several layouts are worth it by the choice that was found with one layout,
              but might not be by a better one, which the lower bound does not exclude.
    """
    once = one_layout(problem)
    search = Search(once.unary, once.pairs, shape_of(once), once.memo, deadline=deadline)
    bound = search.bound(problem.unary, problem.pairs)

    def least(of: Problem) -> Found:
        found = search.least(of.unary, of.pairs)
        return msgspec.structs.replace(found.judged(problem.value(found.choice)), any_bound=min(bound, found.bound))

    allowed = problem if several else once
    found = least(allowed)
    if several is None and found.value > bound * (1 + WORTH):
        other = least(problem)
        if found.value > other.value * (1 + WORTH):
            return problem, search, other, found.bound > other.value * (1 + WORTH)
    return allowed, search, found, True


def _is_several(phases: Sequence[Phase], candidates: Candidates, prices: Prices, deadline: float) -> bool:
    """Say whether parameters may have several layouts. It is decided without pins, so that adding a pin cannot speed up a plan."""
    problem = _pinned(phases, candidates, prices, ())
    allowed, _, found, decided = _fastest(problem, deadline, None)
    if not decided and _is_small(problem, found) and time.perf_counter() < deadline:
        problem = _pinned(phases, candidates, prices, (), problem.worth_copying())
        allowed = _fastest(problem, deadline, None)[0]
    return allowed is problem


def _budgets(mesh: Mesh, machine: Machine, memory_limit: int | None) -> list[float]:
    limit = np.inf if memory_limit is None else memory_limit
    return [min(limit, machine.device(rank).memory_bytes) for rank in range(mesh.size)]


def _fits(problem: Problem, memory_limit: int | None) -> bool:
    """Say whether a quick search finds a plan that fits."""
    shape, budgets = shape_of(problem), _budgets(problem.mesh, problem.prices.machine, memory_limit)
    problem = one_layout(problem)
    search = Search(problem.unary, problem.pairs, shape, problem.memo, deadline=0.0)
    found = search.least(problem.unary, problem.pairs)
    limited = Limited(problem, shape, budgets, lambda choice: memory_of(problem, choice))
    return all(peak <= most for peak, most in zip(limited.smallest(found).peaks, budgets, strict=True))


def memory_of(problem: Problem, choice: Sequence[int]) -> list[Memory]:
    """Return the memory that each rank needs, measured on the programs lowered from a choice."""
    made = _read(problem, choice)
    return peaks([lower(problem.graph, made, phase.name) for phase in problem.phases])


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
                source, layouts = problem.source(variable.name, variable.phase)
                if Layout(layouts[choice[source]].dims) != pick:
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
