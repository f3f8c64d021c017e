"""Seconds of a collective among n ranks: the steps of a ring, and a fixed price per call.

    all_reduce       2 (n-1) (latency + bytes / n / bandwidth) + call      bytes: the input of each rank
    reduce_scatter     (n-1) (latency + bytes / n / bandwidth) + call      bytes: the input of each rank
    all_gather         (n-1) (latency + bytes / n / bandwidth) + call      bytes: the result on each rank
    all_to_all         (n-1) (latency + bytes / n / bandwidth) + call      bytes: the input of each rank

If the links of a ring are different, the slowest one counts, because every step waits for it. A link may have numbers of its
own for a kind of collective and a range of sizes. Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective
Communication Operations in MPICH", 2005.
"""

from __future__ import annotations

from unitp.cost.link import Link

ROUNDS = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "all_to_all": 1}
"""How often each kind of collective goes around the ring."""


def collective_seconds(link: Link, kind: str, ranks: int, nbytes: float) -> float:
    """Return the seconds of one collective; 0 for a group of one rank.

    link     the slowest link of its ring (`Machine.ring`)
    kind     a key of `ROUNDS`
    ranks    the size of the group
    nbytes   bytes of the whole array: the `bytes` of the table above
    """
    if ranks == 1:
        return 0.0
    over = link.of(kind, nbytes)
    step = over.latency_s + nbytes / ranks / over.bytes_per_s
    return ROUNDS[kind] * (ranks - 1) * step + over.call_s
