"""The phase of a plan that serves a call is the one with the nearest sizes. A call of one token is never a prefill."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

from unitp.plans import Plan


def choose_phase(plan: Plan, sizes: Mapping[str, int]) -> str:
    """The name of the nearest phase: first by whether it has one token per sequence, then by distance of all sizes in octaves."""

    def distance(planned: Mapping[str, int]) -> tuple[bool, float]:
        shared = [(n, planned[symbol]) for symbol, n in sizes.items() if symbol in planned]
        single = "seq" in sizes and (sizes["seq"] == 1) != (planned.get("seq") == 1)
        return single, sum(abs(log2(max(a, 1) / max(b, 1))) for a, b in shared)

    return min(plan.phases, key=lambda p: distance(p.phase.sizes)).phase.name
