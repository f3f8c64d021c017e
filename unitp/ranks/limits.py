"""How long a session may take to start, to show signs of life and to make progress before the watchdog calls it broken."""

from __future__ import annotations

import os

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Time limits in seconds. `start_s`: until all ranks are ready (None: the backend's, see `of_group`).

    `missing_s`: until a launcher must have started its ranks.
    """

    start_s: float | None = None
    stall_s: float = 120.0
    heartbeat_s: float = 30.0
    missing_s: float = 10.0

    def of_group(self, start_s: float, ranks: int) -> Limits:
        """These limits for a number of ranks of a backend whose start takes at most `start_s` on a core of its own.

        Ranks that share a core start one after the other.
        """
        if self.start_s is not None:
            return self
        crowd = max(1.0, ranks / len(os.sched_getaffinity(0)))
        return msgspec.structs.replace(self, start_s=start_s * crowd, missing_s=self.missing_s * crowd)
