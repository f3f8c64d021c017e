"""The three numbers of a link between ranks: latency and bandwidth of a ring step, and the price of a call of a collective.

A link may have different numbers for a kind of collective. If its time is not linear in the bytes, it has several stretches: each
has its own three numbers, for whole arrays up to some size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""The kinds of collectives that a link may have numbers for."""


class Stretch(msgspec.Struct, frozen=True):
    """The numbers of a link for a kind of collective and whole arrays of at most `up_to` bytes; the fields are those of `Link`."""

    latency_s: float
    bytes_per_s: float
    call_s: float
    up_to: float = inf


class Link(msgspec.Struct, frozen=True):
    """What a collective costs between two ranks.

    latency_s     seconds of a ring step, whatever its size
    bytes_per_s   bandwidth in one direction
    call_s        seconds of a call, whatever its size
    kinds         different numbers for a kind of collective, as stretches of ascending `up_to`; that of the last is infinite
    """

    latency_s: float
    bytes_per_s: float
    call_s: float
    kinds: dict[str, tuple[Stretch, ...]] = {}

    def of(self, kind: str, nbytes: float) -> Link | Stretch:
        """Return the three numbers for a kind of collective and whole arrays of `nbytes`."""
        return next((s for s in self.kinds.get(kind, ()) if nbytes <= s.up_to), self)

    def worse(self, other: Link) -> Link:
        """Return a link that is in every number as slow as the slower of the two."""
        return slowest((self, other))


def slowest(links: Sequence[Link]) -> Link:
    """Return a link that is in every number as slow as the slowest of `links`, for each kind of collective and each size."""
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
