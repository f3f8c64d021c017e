"""The planner against every plan there is, its certificates against its programs, and its plans against the unsharded run.

Graphs of a few nodes are planned under random prices on 1-D and 2-D meshes, with and without roles, for one phase or two.
`unitp.testing.exhaustive` makes, lowers and prices every plan of such a graph, with no help from the planner's tables.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from importlib import import_module
from typing import Any

import budget
import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import unitp
from unitp import planner
from unitp.certificate import CertifiedPlan
from unitp.comparison.metrics import MEANING
from unitp.cost import Machine
from unitp.cost.machine_file import load_machine
from unitp.errors import PlanError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner.problem.one_layout import WORTH
from unitp.planner.solve.elimination import TooWideError
from unitp.planner.tie_break import TOLERANCE
from unitp.plans import Phase, Plan
from unitp.program.lower import lower
from unitp.program.memory import peaks
from unitp.program.objective import held_bytes, objective
from unitp.testing.exhaustive import Found, Space, best, frugal
from unitp.testing.models import EAGER_TO_SPLIT, tiny
from unitp.testing.random_graphs import random_graph
from unitp.testing.small_graphs import random_machine, small_graph
from unitp.testing.unsharded import difference

MESHES = [Mesh(tp=2), Mesh(tp=3), Mesh(dp=2), Mesh(dp=2, tp=2)]
MOST_PROGRAMS = 800
"""So many are lowered for one example; a graph with more plans loses nodes until it has fewer."""

SAME = partial(pytest.approx, rel=1e-9, abs=0.0)


def examples(max_examples: int) -> settings:
    """So many, or a part of them where time is short."""
    return settings(
        budget.examples(max_examples), phases=[hypothesis.Phase.generate]
    )  # a smaller seed does not make a smaller graph


class Case(msgspec.Struct, frozen=True, dict=True):
    """A small planning problem, with all its plans."""

    graph: Graph
    mesh: Mesh
    phases: tuple[Phase, ...]
    machine: Machine
    roles: dict[str, str]
    memory: bool

    @cached_property
    def space(self) -> Space:
        return Space(self.graph, self.mesh, self.phases, self.machine, self.roles, memory=self.memory)

    @cached_property
    def plans(self) -> list[Found]:
        """What there is to choose from."""
        return self.space.considered(WORTH)

    def on(self, machine: Machine) -> Case:
        """The same on another machine: its memory too decides on bounds."""
        return msgspec.structs.replace(self, machine=machine)

    def plan(self, **more: Any) -> CertifiedPlan:
        return planner.plan(
            planner.Request(
                self.graph, self.mesh, self.phases, roles=self.roles, machine=self.machine, allow_unused=True, **more
            )
        )


def case(seed: int, most: int = MOST_PROGRAMS, memory: bool = False) -> Case:
    """A problem of at most so many programs. Of two phases one is not larger than the other in any size."""
    rng = np.random.default_rng([seed, 1])
    mesh = MESHES[int(rng.choice(len(MESHES), p=[0.35, 0.25, 0.1, 0.3]))]
    symbolic = bool(rng.random() < 0.5)
    roles = {"dp": "batch"} if rng.random() < 0.5 else {}
    large = {"batch": int(rng.integers(2, 5)), "seq": int(rng.integers(1, 4))}
    small = {"batch": int(rng.integers(2, large["batch"] + 1)), "seq": int(rng.integers(1, large["seq"] + 1))}
    phases = [Phase("large", large, float(10 ** rng.uniform(-1, 1)))]
    if rng.random() < (0.6 if symbolic else 0.2):
        phases.insert(int(rng.integers(2)), Phase("small", small, float(10 ** rng.uniform(-1, 1))))
    smaller = [(mesh, phases, True), (MESHES[0], phases, True), (MESHES[0], phases[:1], False)]
    for (on, fewer, heterogeneous), nodes in itertools.product(smaller, [5, 4, 3, 2, 1]):
        graph = small_graph(seed, nodes, symbolic)
        machine = random_machine(np.random.default_rng([seed, 2]), on, heterogeneous=heterogeneous)
        if Space(graph, on, fewer, machine, roles).count <= most:
            break
    return Case(graph, on, tuple(fewer), machine, roles, memory)


def by_programs(plan: Plan, graph: Graph, machine: Machine) -> float:
    """The objective of a plan by the code that prices programs."""
    return objective([(p.phase.weight, lower(graph, plan, p.phase.name)) for p in plan.phases], machine)


def by_memory(plan: Plan, graph: Graph) -> float:
    """Bytes that a rank holds on average, by the programs of a plan."""
    return held_bytes([lower(graph, plan, p.phase.name) for p in plan.phases])


# the best there is


@pytest.mark.timeout(300)
@examples(max_examples=300)
@given(seed=st.integers(0, 10**6))
@example(seed=123)  # one layout is worth it, by plans that share conversions
def test_a_plan_is_as_good_as_the_best_of_all_plans(seed: int) -> None:
    """Of those within 0.1 % of the fastest it holds least. It costs what its programs cost, holds what they hold, and is right."""
    problem = case(seed)
    made, quick, least = problem.plan(), best(problem.plans), frugal(problem.plans, TOLERANCE)
    found = made.certificate
    assert found.lower_bound_s == SAME(quick.objective)
    assert found.fastest_s == SAME(quick.objective)
    assert found.objective_s == SAME(least.objective)
    assert found.objective_s == SAME(found.lower_bound_s * (1 + found.gap))
    assert 0.0 <= found.gap <= TOLERANCE * (1 + 1e-9)
    assert found.held_bytes * problem.mesh.size == SAME(least.held)
    assert found.held_bound_bytes <= found.held_bytes
    assert by_programs(made, problem.graph, problem.machine) == SAME(found.objective_s)
    assert by_memory(made, problem.graph) == SAME(found.held_bytes)
    judged = problem.space.of(made)
    assert judged.objective == SAME(found.objective_s)
    assert judged.held == SAME(least.held)
    assert found.any_bound_s <= quick.objective * (1 + 1e-9)
    for phase in problem.phases:
        assert difference(problem.graph, made, phase.name) <= MEANING


@pytest.mark.full
@pytest.mark.timeout(3600)
@examples(max_examples=2000)
@given(seed=st.integers(0, 10**9))
def test_larger_graphs_too_have_no_better_plan(seed: int) -> None:
    problem = case(seed, most=10 * MOST_PROGRAMS)
    quick, least = best(problem.plans), frugal(problem.plans, TOLERANCE)
    made = problem.plan().certificate
    assert made.lower_bound_s == SAME(quick.objective)
    assert made.held_bytes * problem.mesh.size == SAME(least.held)


@pytest.mark.timeout(300)
@examples(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_a_plan_found_by_descent_never_claims_more_than_holds(seed: int) -> None:
    """Two phases whose tables are said to be too wide together: the best plan lies between bound and objective."""
    problem = case(seed)
    quick = best(problem.plans)

    def too_wide(*_: object, **__: object) -> None:
        raise TooWideError(9, 10**9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("unitp.planner.fastest"), "minimise", too_wide)
        made = problem.plan()
    found = made.certificate
    assert found.lower_bound_s <= quick.objective * (1 + 1e-9)
    assert quick.objective <= found.objective_s * (1 + 1e-9)
    assert by_programs(made, problem.graph, problem.machine) == SAME(found.objective_s)
    assert "exact" not in found.solver
    scale = found.lower_bound_s or found.objective_s or 1.0
    assert found.gap == pytest.approx((found.objective_s - found.lower_bound_s) / scale, abs=1e-12)


@pytest.mark.timeout(300)
def test_a_plan_within_a_memory_limit_is_as_good_as_the_best_that_fits() -> None:
    """And where none fits, that is said. Devices may have less than the limit. Nearly all plans are proven in 5 seconds of the
    processor's time: others may use it too.
    """
    proven: list[bool] = []

    @examples(max_examples=100)
    @given(seed=st.integers(0, 10**6))
    def judge(seed: int) -> None:
        proven.append(within_a_limit(seed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", time.process_time)
        judge()
    assert proven.count(False) <= max(1, 3 * len(proven) // 100)


def within_a_limit(seed: int) -> bool:
    """Judge a plan under a limit that is met by some plan's peak, or by none; whether it was proven to be the best."""
    problem, rng = case(seed, MOST_PROGRAMS // 4, memory=True), np.random.default_rng([seed, 3])
    every = problem.plans
    needs = sorted({max(found.peaks) for found in every})
    limit = int(needs[0] - 1 if rng.random() < 0.15 else rng.choice(needs))
    devices = problem.machine.devices
    if len(devices) > 1:
        less = {name: float(max(limit - int(rng.integers(0, 12)), 1)) for name in devices}
        devices = {name: msgspec.structs.replace(d, memory_bytes=less[name]) for name, d in devices.items()}
        problem = problem.on(msgspec.structs.replace(problem.machine, devices=devices))
        every = problem.plans
    budgets = [min(limit, problem.machine.device(rank).memory_bytes) for rank in range(problem.mesh.size)]
    fitting = [f for f in every if all(p <= most for p, most in zip(f.peaks, budgets, strict=True))]
    if not fitting:
        with pytest.raises(PlanError):
            problem.plan(memory_limit=limit, time_limit=5.0)
        return True
    made, least = problem.plan(memory_limit=limit, time_limit=5.0), best(fitting).objective
    own = peaks([lower(problem.graph, made, phase.name) for phase in problem.phases])
    assert all(need.peak <= most for need, most in zip(own, budgets, strict=True))
    assert [need.peak for need in own] == [*problem.space.of(made).peaks]
    assert by_programs(made, problem.graph, problem.machine) == SAME(made.certificate.objective_s)
    found = made.certificate
    assert found.lower_bound_s <= least * (1 + 1e-9) <= found.objective_s * (1 + 2e-9)
    assert found.objective_s <= found.fastest_s * (1 + TOLERANCE) * (1 + 1e-9)
    proven = found.fastest_s <= found.lower_bound_s * (1 + 1e-12)
    assert not proven or found.objective_s <= least * (1 + TOLERANCE) * (1 + 1e-9)
    return proven


def test_the_space_is_what_it_says() -> None:
    """A product of two matrices on two ranks: every plan of it, counted by hand."""
    from unitp.frontends.builder import Builder

    b = Builder("product")
    graph = b.graph(b.MatMul(b.input("x", "float32", (1, 4)), b.random("w", (4, 6), seed=1)))
    space = Space(graph, Mesh(tp=2), [Phase("main", {})], Machine())
    # splits of the product: none, k, n; x: whole or by k; w: whole, by k, by n; the result: whole or by n
    assert space.count == 3 * 2 * 3 * 2
    kinds = {tuple(sorted(p.plan.phases[0].nodes["matmul_0"])) for p in space.all()}
    assert kinds <= {(), ("k",), ("n",)}
    quick = best(list(space.all()))
    assert quick.objective == SAME(by_programs(quick.plan, graph, Machine()))


# right


@pytest.mark.timeout(300)
@examples(max_examples=100)
@given(seed=st.integers(0, 10**6), mesh=st.sampled_from([Mesh(tp=2), Mesh(tp=3), Mesh(tp=4), Mesh(a=2, tp=3)]))
def test_plans_of_larger_graphs_are_right_and_cost_what_their_programs_cost(seed: int, mesh: Mesh) -> None:
    """Under random prices, so that not everything is left whole."""
    graph, machine = random_graph(seed), random_machine(np.random.default_rng(seed), mesh)
    made = planner.plan(planner.Request(graph, mesh, [Phase("main", {})], machine=machine, allow_unused=True))
    assert difference(graph, made, "main", seed) <= MEANING
    assert by_programs(made, graph, machine) == SAME(made.certificate.objective_s)


# real models

PREFILL = {"batch": 4, "seq": 64, "cache": 128, "live": 128, "take": 1, "candidates": 1}
DECODE = {**PREFILL, "seq": 1, "cache": 256, "live": 256}


@cache
def llama() -> Graph:
    return unitp.load("llama-3.1-8b").graph


REAL: dict[str, tuple[Callable[[], Graph], Mesh, Machine, Sequence[str]]] = {
    "tiny": (lambda: tiny().graph, Mesh(tp=2), EAGER_TO_SPLIT, ()),
    "tiny, uneven": (lambda: tiny().graph, Mesh(tp=4), EAGER_TO_SPLIT, ()),
    "tiny, two axes": (lambda: tiny().graph, Mesh(dp=2, tp=3), EAGER_TO_SPLIT, ()),
    "tiny, pinned": (lambda: tiny().graph, Mesh(tp=2), Machine(), ("blk.*.ffn_down.weight: S(0)@tp", "*norm*: R")),
    "smollm2": (lambda: unitp.load("smollm2-135m").graph, Mesh(tp=2), Machine(), ()),
    "smollm2, pinned": (
        lambda: unitp.load("smollm2-135m").graph,
        Mesh(tp=2),
        Machine(),
        ("blk.*.ffn_down.weight: x=S(2)@tp, y=P@tp", "decode/blk.*.attn_output.weight: x=R"),
    ),
    "llama-3.1-8b": (llama, Mesh(dp=2, tp=4), Machine(), ()),
    "llama-3.1-8b, NVLink": (llama, Mesh(tp=8), load_machine("h100-nvlink"), ()),
    "llama-3.1-8b, pinned": (llama, Mesh(tp=4), Machine(), ("prefill/add_*: S(-1)@tp",)),
}


@pytest.mark.parametrize("name", REAL)
def test_plans_of_real_models_cost_what_their_programs_cost(name: str) -> None:
    make, mesh, machine, pins = REAL[name]
    graph, phases = make(), [Phase("prefill", PREFILL, 1.0), Phase("decode", DECODE, 200.0)]
    made = planner.plan(planner.Request(graph, mesh, phases, machine=machine, pins=pins))
    assert by_programs(made, graph, machine) == SAME(made.certificate.objective_s)
    assert made.certificate.lower_bound_s <= made.certificate.objective_s * (1 + 1e-12)
