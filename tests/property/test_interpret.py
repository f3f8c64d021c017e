"""Random programs: folding changes nothing, overrides change rounding only, what is given is left as it is."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unitp.comparison.metrics import MEANING, relative_error
from unitp.engine.eager import EagerEngine
from unitp.engine.overrides import Overrides
from unitp.engine.transport import Alone
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.plans import Phase, unsplit
from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.testing.operators import kit
from unitp.testing.random_graphs import random_graph

NUMPY = kit("numpy")


def program_of(graph: Graph) -> Program:
    return lower(graph, unsplit(graph, [Phase("main", {})]), "main", {}, dtype="float64")


def arrays_of(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {p.name: rng.normal(size=p.type.sized({})) for p in graph.parameters}
    return arrays | {name: rng.integers(0, 5, type_.sized({})) for name, type_ in graph.inputs.items()}


def run(program: Program, arrays: dict[str, np.ndarray], overrides: Overrides | None = None) -> list[np.ndarray]:
    engine = EagerEngine(NUMPY.primitives, overrides or Overrides(), Alone(), 0, Mesh())
    for name in program.parameters:
        engine.load(name, arrays[name])
    engine.compile("main", program)
    found = engine.run("main", {name: arrays[name] for name in program.inputs})
    return [found[name] for name in program.outputs]


def distance(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(
        relative_error(a, b) if b.dtype.kind == "f" else 0.0 if np.array_equal(a, b) else np.inf for a, b in pairs
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_a_parameter_given_as_an_input_gives_the_same_bits(seed):
    program, arrays = program_of(random_graph(seed)), arrays_of(random_graph(seed), seed)
    unfolded = msgspec.structs.replace(program, inputs=program.inputs + program.parameters, parameters=())
    for one, other in zip(run(program, arrays), run(unfolded, arrays), strict=True):
        assert np.array_equal(one, other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_overrides_equal_decompositions(seed):
    program, arrays = program_of(random_graph(seed)), arrays_of(random_graph(seed), seed)
    assert distance(run(program, arrays, NUMPY.overrides), run(program, arrays)) <= MEANING


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_inputs_and_parameters_are_left_as_they_are(seed):
    graph = random_graph(seed)
    program, arrays = program_of(graph), arrays_of(graph, seed)
    before = {name: array.copy() for name, array in arrays.items()}
    first = run(program, arrays, NUMPY.overrides)
    assert all(np.array_equal(before[name], array) for name, array in arrays.items())
    assert distance(run(program, arrays, NUMPY.overrides), first) == 0.0
