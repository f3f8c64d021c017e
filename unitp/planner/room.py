"""What to say where no plan fits: which rank, by how much, the least memory that would do, and a mesh that would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

from unitp.cost.bytes import format_bytes
from unitp.errors import PlanError
from unitp.mesh import Mesh
from unitp.planner.limited import NoFitError

TIMES = (1.25, 1.5, 1.75, 2, 3, 4, 6, 8, 12, 16, 24, 32)
MOST_RANKS = 1024


def no_room(
    error: NoFitError,
    name: str,
    mesh: Mesh,
    budgets: Sequence[float],
    free: Sequence[str],
    fits: Callable[[Mesh], bool],
) -> PlanError:
    """The error that a user sees. `free`: axes that may be longer; `fits`: whether some plan fits on such a mesh."""
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
    for larger in _larger(mesh, free):
        if fits(larger):
            hints.append(f"So would the mesh {larger} with this limit.")
            break
    else:
        hints.append("No larger mesh that was tried would do: shorten the phases or take a smaller batch.")
    return PlanError(
        f"no plan for {name} on {mesh} fits: rank {rank} needs {format_bytes(need.peak)} ({parts}), {limits}{unproven}",
        hint=" ".join(hints),
    )


def _larger(mesh: Mesh, free: Sequence[str]) -> Iterator[Mesh]:
    """Meshes with the longest free axis so many times as long (or with an axis `tp` where there is none), smaller ones first."""
    sizes = mesh.sizes
    axis = max(free, key=sizes.__getitem__, default="tp")
    for size in sorted({ceil(sizes.get(axis, 1) * times) for times in TIMES}):
        larger = Mesh(**{**sizes, axis: size})
        if larger.size <= MOST_RANKS:
            yield larger
