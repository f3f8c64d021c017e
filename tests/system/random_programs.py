"""What each NumPy rank runs in `test_numpy_ranks`: random graphs under random plans, against the unsharded run.

    mpiexec -n 4 python random_programs.py dp=2,tp=2 FIRST LAST

Prints one line of JSON per rank: the largest error, and what the collectives cost.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
from unitp_mpi.collectives import Buffers
from unitp_numpy import primitives
from unitp_numpy.overrides import overrides

from unitp.comparison.metrics import relative_error
from unitp.engine.eager import EagerEngine
from unitp.engine.transport import Buffered, CountedCollectives
from unitp.mesh import Mesh
from unitp.program.lower import lower
from unitp.program.rank import intervals
from unitp.testing.random_graphs import random_graph
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import simulate


def error(seed: int, rank: int, mesh: Mesh, collectives: CountedCollectives) -> float:
    """How far this rank's parts are from those of the unsharded run; inf where an integer differs."""
    graph, rng = random_graph(seed), np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {p.name: rng.normal(size=p.type.sized({})) for p in graph.parameters}
    arrays |= {name: rng.integers(0, 5, type_.sized({})) for name, type_ in graph.inputs.items()}
    whole = simulate(lower(graph, random_plan(graph, Mesh(), seed), "main", {}, dtype="float64"), arrays, arrays)
    program = lower(graph, random_plan(graph, mesh, seed), "main", {}, dtype="float64")

    def mine(name: str, array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(a, b) for a, b in intervals(program, name, rank))]

    engine = EagerEngine(primitives, overrides, collectives, rank, mesh)
    for name in program.parameters:
        engine.load(name, mine(name, arrays[name]))
    engine.compile("main", program)
    found = engine.run("main", {name: mine(name, arrays[name]) for name in program.inputs})
    worst = 0.0
    for name, array in zip(program.outputs, whole.outputs.values(), strict=True):
        part, wanted = found[name], mine(name, array)
        same = part.shape == wanted.shape and part.dtype == wanted.dtype
        close = (
            relative_error(part, wanted)
            if wanted.dtype.kind == "f"
            else 0.0
            if np.array_equal(part, wanted)
            else np.inf
        )
        worst = max(worst, close if same else np.inf)
    return worst


def main(axes: str, first: str, last: str) -> None:
    mesh, rank = Mesh.parse(axes), int(os.environ["PMI_RANK"])
    collectives = Buffered(Buffers(rank, mesh))
    worst = max(error(seed, rank, mesh, collectives) for seed in range(int(first), int(last)))
    probe = EagerEngine(primitives, overrides, collectives, rank, mesh).all_reduce_probe(rank + 1.0)
    tally = collectives.tally
    line = {"rank": rank, "error": worst, "probe": probe, "calls": tally.calls, "bytes": tally.bytes}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    collectives.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
