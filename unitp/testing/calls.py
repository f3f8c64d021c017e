"""A decoder's calls on simulated ranks: what a session does with a plan at any size, in one process and in float64.

Every call has the phase, the lowering, the check and the interpreter that it has in a session; only ranks and transport are
simulated. The caches live between calls as whole arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.graph.graph import Graph
from unitp.graph.weights import read
from unitp.plans import Plan
from unitp.program.check import check
from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.session.nearest_phase import choose_phase
from unitp.testing.simulate import simulate

Array = npt.NDArray[Any]


class SimulatedCalls:
    """`execute` is a `unitp.session.decoder.Execute` for a graph under a plan. `programs`: those that ran, by their sizes and outputs."""

    def __init__(self, graph: Graph, plan: Plan, parameters: dict[str, Array] | None = None) -> None:
        self.graph, self.plan = graph, plan
        self.parameters = parameters if parameters is not None else whole_parameters(graph)
        self.programs: dict[tuple[object, ...], Program] = {}
        self.states: dict[str, Array] = {}

    def execute(self, sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the outputs of a call, which writes its rows into the caches."""
        program = self._program(sizes, outputs)
        for state in self.graph.states:
            shape = state.type.sized(sizes)
            if state.input not in self.states or self.states[state.input].shape != shape:
                self.states[state.input] = np.zeros(shape)
        found = simulate(program, inputs, self.parameters | self._sized(sizes), self.states)
        if found.spread > 1e-9:
            raise AssertionError(f"ranks that hold the same differ by {found.spread} at {sizes}")
        self.states = found.states
        return {name: found.outputs[held] for name, held in zip(outputs, program.outputs, strict=True)}

    def _sized(self, sizes: dict[str, int]) -> dict[str, Array]:
        """Return the parameters that have as many rows as a call says."""
        symbolic = [p for p in self.graph.parameters if any(isinstance(dim, str) for dim in p.type.shape)]
        return {p.name: read(p.source, [(0, n) for n in p.type.sized(sizes)], "float64") for p in symbolic}

    def _program(self, sizes: dict[str, int], outputs: tuple[str, ...]) -> Program:
        key = (*sizes.items(), *outputs)
        if key not in self.programs:
            program = lower(self.graph, self.plan, choose_phase(self.plan, sizes), sizes, outputs, "float64")
            check(program, self.graph, outputs=outputs)
            self.programs[key] = program
        return self.programs[key]


def whole_parameters(graph: Graph) -> dict[str, Array]:
    """Return all parameters whose size the graph determines; floats are float64."""
    made = {}
    for p in graph.parameters:
        shape = [dim for dim in p.type.shape if isinstance(dim, int)]
        if len(shape) == len(p.type.shape):
            made[p.name] = read(
                p.source, [(0, n) for n in shape], "float64" if p.type.dtype == "float32" else p.type.dtype
            )
    return made
