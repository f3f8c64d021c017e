"""How many sequences fit into a session, within the memory limit of its plan.

parameters + activations of the plan's phases + caches(context, sequences)  <=  limit        on every rank
"""

from __future__ import annotations

from bisect import bisect_right
from math import prod

import numpy as np

from unitp.certificate import CertifiedPlan
from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.plans import Plan
from unitp.program.lower import lower
from unitp.program.memory import peaks
from unitp.session.decoder import cache_rows
from unitp.texts import shortened

DEFAULT_SEQUENCES = 16
MOST_SEQUENCES = 1 << 20


def rows_for(graph: Graph, plan: Plan, context: int, wanted: int | None) -> int:
    """The number of rows of a language model's session: `wanted`, by default as many as the limit allows, at most 16.

    Raises InputError if the mesh or the plan's memory limit does not allow `wanted` rows.
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
    limit = plan.certificate.memory_limit if isinstance(plan, CertifiedPlan) else None
    most = max(DEFAULT_SEQUENCES, least)
    if limit is None:
        return wanted or most
    others = [m.parameters + m.activations for m in peaks([lower(graph, plan, p.phase.name) for p in plan.phases])]

    def needs_most(rows: int) -> tuple[int, int]:
        """The rank that needs the most memory with `rows` sequences, and its bytes."""
        need, rank = max((bytes_ + caches(graph, plan, context, rows, r), r) for r, bytes_ in enumerate(others))
        return rank, need

    fitting = bisect_right(range(1, (wanted or most) + 1), limit, key=lambda rows: needs_most(rows)[1])
    if fitting >= (wanted or least):
        return fitting
    rank, need = needs_most(wanted or least)
    could = f"There is room for {fitting}." if fitting else "A smaller context needs less."
    raise InputError(
        f"rank {rank} needs {need / 2**20:.1f} MiB with caches for {wanted or least} sequences of {context} tokens, "
        f"and the plan's limit is {limit / 2**20:.1f} MiB",
        hint=could,
    )


def enough_for(sequences: int) -> int | None:
    """The `sequences` to launch with, to run this many at once: None if the default is enough."""
    return sequences if sequences > DEFAULT_SEQUENCES else None


def caches(graph: Graph, plan: Plan, context: int, rows: int, rank: int) -> int:
    """The bytes that the states of `rows` sequences take on a rank."""
    total = 0
    for state in graph.states:
        shape = state.type.sized({"batch": rows, "cache": cache_rows(context)})
        local = plan.states[state.input].bind(shape, plan.mesh).local_shape(shape, rank, plan.mesh)
        total += prod(local) * np.dtype(state.type.dtype).itemsize
    return total
