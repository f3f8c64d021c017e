"""What a collective costs between two ranks: a latency and a bandwidth for each step of the ring, and a price for each call.

A link may know more of a kind of collective: its own three numbers, by the size of the whole array where they are not linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


class Stretch(msgspec.Struct, frozen=True):
    """The numbers of a kind of collective for whole arrays of at most `up_to` bytes."""

    latency_s: float
    bytes_per_s: float
    call_s: float
    up_to: float = inf


class Link(msgspec.Struct, frozen=True):
    """What a step of a collective costs between two ranks (latency, bytes one way), and each call whatever its size.

    `kinds`: what differs for a kind of collective, in stretches of ascending `up_to`, the last without end.
    """

    latency_s: float
    bytes_per_s: float
    call_s: float
    kinds: dict[str, tuple[Stretch, ...]] = {}

    def of(self, kind: str, nbytes: float) -> Link | Stretch:
        """The three numbers for a kind of collective of whole arrays of `nbytes`."""
        return next((s for s in self.kinds.get(kind, ()) if nbytes <= s.up_to), self)

    def worse(self, other: Link) -> Link:
        """As slow as the slower of two in every respect."""
        return slowest((self, other))


def slowest(links: Sequence[Link]) -> Link:
    """As slow as the slowest of several in every respect, kind by kind and size by size."""
    kinds = {}
    for kind in sorted({kind for link in links for kind in link.kinds}):
        edges = sorted({s.up_to for link in links for s in link.kinds.get(kind, ())} | {inf})
        kinds[kind] = tuple(Stretch(*_slowest([link.of(kind, edge) for link in links]), edge) for edge in edges)
    return Link(*_slowest(links), kinds)


def _slowest(links: Sequence[Link | Stretch]) -> tuple[float, float, float]:
    return (
        max(link.latency_s for link in links),
        min(link.bytes_per_s for link in links),
        max(link.call_s for link in links),
    )
