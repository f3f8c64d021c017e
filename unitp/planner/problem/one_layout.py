"""Forbid that a parameter is held in more than one layout.

A conversion of a parameter runs once, at load, and costs no call any time. If only time counted, each phase would keep a copy of
the whole model, split as suits it best, to save a percent of its time. So all readers of a parameter must take it in one layout,
in every phase; only a mask of it (a bias that one rank adds) may be kept as well. A parameter has several layouts only if that
makes the plan faster by more than `WORTH`, or if pins leave no layout that all its readers can take.
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
"""The fraction of the time that a plan must save for parameters to be held in several layouts."""


def one_layout(problem: Problem) -> Problem:
    """Return the problem that forbids a second layout of a parameter, and of what depends on parameters alone.

    A parameter that pins leave without a layout for all its readers is not restricted.
    """
    memo, pairs = problem.memo, dict(problem.pairs)
    agree: dict[tuple[int, int], Table] = {}
    edges: dict[int, list[tuple[int, Table]]] = {}
    for copied in problem.copied:
        key = id(copied.produced), id(copied.required)
        if key not in agree:
            agree[key] = np.where(_alike(copied.produced, copied.required), 0.0, np.inf)
        edges.setdefault(copied.source, []).append((copied.reader, agree[key]))

    def able(number: int) -> Mask:
        """Return the choices of a variable that all its readers, and theirs in turn, can take without conversion."""
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
    return problem.with_pairs(pairs)


def _alike(produced: Sequence[Layout], required: Sequence[Layout]) -> Mask:
    """Say for each produced and required layout whether they split every dim alike."""
    return np.array([[a.dims == b.dims for b in required] for a in produced])
