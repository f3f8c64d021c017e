"""How many sequences fit into a session, within the memory that its plan allows each rank.

parameters + activations of the plan's phases + caches(context, sequences)  <=  budget        on every rank

A rank's budget is the plan's memory limit, or the memory of its device if that is less.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf, prod

from unitp.certificate import CertifiedPlan
from unitp.cost.record import planned_machine
from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.graph.values import item_bytes
from unitp.plans import Plan
from unitp.program.lower import lower
from unitp.program.memory import peaks
from unitp.session.decoder import cache_rows
from unitp.texts import shortened

DEFAULT_SEQUENCES = 16
MOST_SEQUENCES = 1 << 20


def rows_for(graph: Graph, plan: Plan, context: int, wanted: int | None) -> int:
    """The number of rows of a language model's session: `wanted`, by default 16, or one for each coordinate of `dp` if those
    are more. By default there are fewer if the ranks' budgets do not allow as many.

    Raises InputError if the mesh or the budgets do not allow `wanted` rows, or not even one for each coordinate of `dp`.
    """
    least = plan.mesh.sizes.get("dp", 1)
    if wanted is not None and wanted < least:
        needs = (
            f", the mesh needs {least}, one for each coordinate of dp"
            if least > 1
            else ": the number must be 1 or more"
        )
        raise InputError(f"a session cannot have rows for {shortened(wanted)} sequences{needs}")
    if wanted is not None and wanted > MOST_SEQUENCES:
        raise InputError(f"a session cannot have rows for {shortened(wanted)} sequences, at most {MOST_SEQUENCES}")
    budgets = _budgets(plan)
    most = max(DEFAULT_SEQUENCES, least)
    if min(budgets) == inf:
        return wanted or most
    others = [m.parameters + m.activations for m in peaks([lower(graph, plan, p.phase.name) for p in plan.phases])]

    def tightest(rows: int) -> tuple[float, int]:
        """The bytes by which a rank exceeds its budget most with `rows` sequences (negative: it has room), and that rank."""
        needs = [bytes_ + caches(graph, plan, context, rows, rank) for rank, bytes_ in enumerate(others)]
        return max((need - budget, rank) for rank, (need, budget) in enumerate(zip(needs, budgets, strict=True)))

    fitting = bisect_right(range(1, (wanted or most) + 1), 0.0, key=lambda rows: tightest(rows)[0])
    if fitting >= (wanted or least):
        return fitting
    over, rank = tightest(wanted or least)
    could = f"There is room for {fitting}." if fitting else "A smaller context needs less."
    raise InputError(
        f"rank {rank} needs {(budgets[rank] + over) / 2**20:.1f} MiB with caches for {wanted or least} sequences of "
        f"{context} tokens, and the plan's limit is {budgets[rank] / 2**20:.1f} MiB",
        hint=could,
    )


def _budgets(plan: Plan) -> list[float]:
    """The bytes that each rank may need at most; inf where the plan does not say."""
    if not isinstance(plan, CertifiedPlan):
        return [inf] * plan.mesh.size
    limit, machine = plan.certificate.memory_limit, planned_machine(plan)
    return [min(inf if limit is None else limit, machine.device(rank).memory_bytes) for rank in range(plan.mesh.size)]


def enough_for(sequences: int) -> int | None:
    """The `sequences` to launch with, to run this many at once: None if the default is enough."""
    return sequences if sequences > DEFAULT_SEQUENCES else None


def caches(graph: Graph, plan: Plan, context: int, rows: int, rank: int) -> int:
    """The bytes that the states of `rows` sequences take on a rank."""
    total = 0
    for state in graph.states:
        shape = state.type.sized({"batch": rows, "cache": cache_rows(context)})
        local = plan.states[state.input].bind(shape, plan.mesh).local_shape(shape, rank, plan.mesh)
        total += prod(local) * item_bytes(state.type.dtype)
    return total
