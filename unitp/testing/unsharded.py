"""Compares a plan with the unsharded run of the same graph, on ranks simulated in this process, in float64.

The first rule of agreement applies: the error of an output is that of its norm, and integers and bools must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.comparison.metrics import relative_error
from unitp.graph.graph import Graph
from unitp.plans import Phase, Plan, unsplit
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.testing.simulate import simulate

Array = npt.NDArray[Any]


def numbers(graph: Graph, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Return arrays for all inputs, parameters and states of a graph; integers are small indices. `sizes`: those of its symbols."""
    rng = np.random.default_rng(seed)
    types = {**graph.inputs, **{p.name: p.type for p in graph.parameters}, **{s.input: s.type for s in graph.states}}
    made: dict[str, Array] = {}
    for name, type_ in types.items():
        shape = type_.sized(sizes or {})
        if type_.dtype == "float32":
            made[name] = rng.normal(size=shape)
        elif type_.dtype == "bool":
            made[name] = rng.random(shape) < 0.5
        else:
            made[name] = rng.integers(0, 3, shape)
    return made


def difference(graph: Graph, plan: Plan, phase: str, seed: int = 0, *, checked: bool = True) -> float:
    """Return the largest error of any output or state of a phase; inf if an integer differs, or ranks that hold the same rows differ."""
    sizes = plan.phase(phase).phase.sizes
    arrays = numbers(graph, seed, sizes)
    alone = lower(graph, unsplit(graph, [Phase(phase, sizes)]), phase, dtype="float64")
    whole = simulate(alone, arrays, arrays, arrays)
    program = lower(graph, plan, phase, dtype="float64")
    if checked:
        check(program, graph)
    split = simulate(program, arrays, arrays, arrays)
    pairs = [*zip(whole.outputs.values(), split.outputs.values(), strict=True)]
    pairs += [(whole.states[name], split.states[name]) for name in whole.states]
    errors = [relative_error(b, a) if a.dtype.kind == "f" else (0.0 if np.array_equal(a, b) else inf) for a, b in pairs]
    return max([*errors, 0.0 if split.spread < 1e-9 else inf])
