"""The error for a plan that does not fit: which rank, by how much, the least limit that would do, and a mesh that would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from unitp.cost.bytes import format_bytes
from unitp.errors import PlanError
from unitp.mesh import Mesh
from unitp.planner.judged import NoFitError

TIMES = (1, 1.25, 1.5, 1.75, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""The lengths of an axis to try, as multiples of the least one that could hold the weights."""

MOST_RANKS = 1024
"""No larger mesh is tried."""


def no_room(
    error: NoFitError,
    name: str,
    mesh: Mesh,
    budgets: Sequence[float],
    free: Sequence[str],
    weights: float,
    fits: Callable[[Mesh], bool],
) -> PlanError:
    """Return the error that a user sees.

    budgets   the limit of each rank, in bytes
    free      axes of the mesh that may be made longer
    weights   bytes of all parameters
    fits      whether a plan is found that fits on a larger mesh
    """
    need, rank = error.least[error.rank], error.rank
    over = need.peak - budgets[rank]
    unproven = "" if error.proven else "; that there is no other plan is not proven"
    parts = (
        f"weights {format_bytes(need.parameters)}, caches {format_bytes(need.states)}, "
        f"largest live set {format_bytes(need.activations)} in phase {need.phase}"
    )
    limits = f"its limit is {format_bytes(budgets[rank])}: {format_bytes(over)} too little"
    most = max(m.peak for m in error.least)
    hints = [f"A limit of {most} bytes ({format_bytes(most)}) on every rank would do on {mesh}."]
    if (larger := larger_mesh(mesh, free, weights / max(budgets), fits)) is not None:
        hints.append(f"So would the mesh {larger} with this limit.")
    else:
        hints.append("No larger mesh that was tried would do: shorten the phases or take a smaller batch.")
    return PlanError(
        f"no plan for {name} on {mesh} fits: rank {rank} needs {format_bytes(need.peak)} ({parts}), {limits}{unproven}",
        hint=" ".join(hints),
    )


def larger_mesh(mesh: Mesh, free: Sequence[str], ranks: float, fits: Callable[[Mesh], bool]) -> Mesh | None:
    """Return a mesh whose longest free axis (or a new axis `tp`) is long enough for a plan to fit, or None.

    Longer and longer axes are tried, from `ranks` ranks on; then bisection shortens the first that fits.
    """
    sizes = mesh.sizes
    axis = max(free, key=sizes.__getitem__, default="tp")
    others = mesh.size // sizes.get(axis, 1)

    def at(length: int) -> Mesh:
        return Mesh(**{**sizes, axis: length})

    least = max(sizes.get(axis, 1) + 1, ceil(ranks / others))
    short, lengths = least - 1, sorted({ceil(least * times) for times in TIMES})
    for length in lengths:
        if length * others > MOST_RANKS:
            return None
        if fits(at(length)):
            break
        short = length
    else:
        return None
    while length - short > 1:
        middle = (short + length) // 2
        short, length = (short, middle) if fits(at(middle)) else (middle, length)
    return at(length)
