"""Forbid that a parameter is held in more than one layout.

A conversion of a parameter runs once, at load, and takes no time of any call. If only time counted, each phase would have a copy
of the whole model, cut as it likes best, for a percent of its time. So all that read a parameter want it as it is held, in every
phase: one layout, beside which only a mask of it (a bias that one rank adds) is kept. A parameter has several layouts where that
makes the plan faster by more than `WORTH`, and where pins leave it no layout that all its readers want.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unitp.layout import Layout
from unitp.planner.problem.problem import Problem

Table = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WORTH = 0.05
"""Of the time: parameters are held in several layouts only where no plan without is as fast, but for this part."""


def one_layout(problem: Problem) -> dict[tuple[int, int], Table]:
    """`problem.pairs` that forbid a second layout of a parameter, or of what follows from parameters, where pins allow that."""
    memo, pairs = problem.memo, dict(problem.pairs)
    agree: dict[tuple[int, int], Table] = {}
    edges: dict[int, list[tuple[int, Table]]] = {}
    for copied in problem.copied:
        key = id(copied.left), id(copied.wanted)
        if key not in agree:
            agree[key] = np.where(_alike(copied.left, copied.wanted), 0.0, np.inf)
        edges.setdefault(copied.source, []).append((copied.reader, agree[key]))

    def able(number: int) -> Mask:
        """The choices of a variable in which all that reads it, and what reads these, can have it as it is."""
        found = np.isfinite(problem.unary[number])
        for reader, table in edges.get(number, ()):
            found = found & (np.isfinite(table) & able(reader)).any(axis=1)
        return found

    def forbid(number: int) -> None:
        for reader, table in edges.get(number, ()):
            key, turned = ((number, reader), table) if number < reader else ((reader, number), memo.turned(table))
            pairs[key] = memo.add(pairs[key], turned)
            forbid(reader)

    inner = {reader for readers in edges.values() for reader, _ in readers}
    for number in edges:
        if number not in inner and able(number).any():
            forbid(number)
    return pairs


def _alike(left: Sequence[Layout], wanted: Sequence[Layout]) -> Mask:
    """Whether two layouts have the same part of every dim on each rank."""
    return np.array([[a.dims == b.dims for b in wanted] for a in left])
