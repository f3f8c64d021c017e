"""Seconds of a collective among n ranks: ring steps, each of a latency and a part of the bytes, and a price per call.

    all_reduce       2 (n-1) (latency + bytes / n / bandwidth) + call      bytes: the array that each rank gives
    reduce_scatter     (n-1) (latency + bytes / n / bandwidth) + call      bytes: the array that each rank gives
    all_gather         (n-1) (latency + bytes / n / bandwidth) + call      bytes: the array that each rank gets
    all_to_all         (n-1) (latency + bytes / n / bandwidth) + call      bytes: the array that each rank gives

Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005. Of unlike links the
slowest of the ring counts: every step waits for it. Latency, bandwidth and price per call are those of the kind of
collective and of its size, where the link knows them.
"""

from __future__ import annotations

from unitp.cost.link import Link

ROUNDS = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "all_to_all": 1}


def collective_seconds(link: Link, kind: str, ranks: int, nbytes: float) -> float:
    """Seconds of a collective of `kind` (a key of `ROUNDS`) for whole arrays of `nbytes`; none for a group of one.

    `link`: what holds it up between its ranks (`Machine.ring`).
    """
    if ranks == 1:
        return 0.0
    over = link.of(kind, nbytes)
    step = over.latency_s + nbytes / ranks / over.bytes_per_s
    return ROUNDS[kind] * (ranks - 1) * step + over.call_s
