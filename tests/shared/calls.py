"""How much Python does: calls of functions, its own and those in C, which are the same on every machine and under any load.

A test that asks whether work grows with its input counts them; seconds belong to `tests/bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


def calls(run: Callable[[], object]) -> int:
    """The calls that `run` makes in this thread, itself included. Raises what `run` raises."""
    count = 0

    def count_one(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_one)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count
