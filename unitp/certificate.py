"""How good a plan is, as a value about it: cost, bounds, and how the plan was found.

A plan alone is a decision, which is lowered, checked and run. What `unitp.plan` returns and what a file holds is a `CertifiedPlan`:
the decision with the certificate that the planner gives it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from unitp.plans import Plan


class Unused(msgspec.Struct, frozen=True):
    """An axis over which `phases` split nothing, and the cost of the best plan in which they split all products over it.

    objective_s, seconds   the objective, and the seconds of one call of each phase, under that plan
    """

    axis: str
    phases: tuple[str, ...]
    objective_s: float
    seconds: dict[str, float]


class Certificate(msgspec.Struct, frozen=True):
    """How good a plan is among those that satisfy `pins` and in which no rank needs more than `memory_limit` bytes.

    objective_s        the sum over phases of weight times seconds
    lower_bound_s      a lower bound on the objective of plans with one layout per parameter (`unitp.planner.problem.one_layout`)
    any_bound_s        a lower bound even if parameters may have several layouts (0: unknown)
    fastest_s          the least objective found; of the plans within 0.1 % of it, the one that holds fewest bytes is taken
    gap                the relative gap to the lower bound (of bytes, if memory was minimised)
    solver, elapsed_s  how the plan was found, and the seconds that took
    machine            the hash of the cost model
    priced_on          its numbers that differ from the defaults (`unitp.cost.record`)
    objective          what was minimised: "time" or "memory"
    peak_bytes         if memory was minimised, the bytes of the rank that needs most; else 0
    bound_bytes        a lower bound on `peak_bytes` of every plan
    held_bytes         bytes of parameters, copies of them and states that a rank holds, the mean over ranks
    held_bound_bytes   a lower bound on `held_bytes` of every plan that is as fast (0: unknown)
    unused             axes that phases leave unused, with the cost of using them
    """

    objective_s: float
    lower_bound_s: float
    gap: float
    solver: str
    elapsed_s: float
    machine: str = ""
    pins: tuple[str, ...] = ()
    objective: str = "time"
    memory_limit: int | None = None
    peak_bytes: int = 0
    bound_bytes: int = 0
    priced_on: dict[str, Any] = {}
    unused: tuple[Unused, ...] = ()
    fastest_s: float = 0.0
    any_bound_s: float = 0.0
    held_bytes: float = 0.0
    held_bound_bytes: float = 0.0


class CertifiedPlan(Plan, frozen=True, kw_only=True):
    """A plan and the certificate about it."""

    certificate: Certificate


def certified(plan: Plan, certificate: Certificate) -> CertifiedPlan:
    """Return the plan together with the certificate about it."""
    return CertifiedPlan(
        plan.graph, plan.mesh, plan.parameters, plan.states, plan.phases, plan.model, certificate=certificate
    )
