"""What depends on parameters alone, and how long values live, agree with their definitions on random graphs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from unitp.graph.analysis import static_nodes
from unitp.graph.graph import Graph
from unitp.plans import Phase, unsplit
from unitp.program.analysis import constants, dead_after, per_call
from unitp.program.instructions import Program, reads, writes
from unitp.program.lower import lower
from unitp.testing.small_graphs import small_graph

SIZES = {"batch": 2, "seq": 3}


def leaves(made: dict[str, tuple[str, ...]], name: str) -> set[str]:
    """The values that come from outside and that `name` is computed from."""
    return {leaf for read in made[name] for leaf in leaves(made, read)} if name in made else {name}


def program_of(graph: Graph) -> Program:
    return lower(graph, unsplit(graph, [Phase("main", SIZES)]), "main")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_value_depends_on_parameters_alone_if_nothing_else_is_among_its_leaves(seed: int) -> None:
    graph = small_graph(seed)
    parameters = {p.name for p in graph.parameters}
    made = {name: tuple(filter(None, node.inputs)) for node in graph.nodes for name in node.outputs}
    wanted = {name: roots for name in graph.types if (roots := leaves(made, name)) <= parameters}
    assert {name: set(roots) for name, roots in graph.origins.items()} == wanted
    assert static_nodes(graph) == {node.name for node in graph.nodes if node.name in wanted}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_program_computes_what_depends_on_its_parameters_once(seed: int) -> None:
    program = program_of(small_graph(seed))
    made = {name: reads(i) for i in program.instructions for name in writes(i)}
    parameters = set(program.parameters)
    wanted = {name: roots for name in program.values if (roots := leaves(made, name)) <= parameters}
    assert {name: set(roots) for name, roots in constants(program).items()} == wanted
    called = [n for n, i in enumerate(program.instructions) if not wanted.keys() >= set(writes(i))]
    assert [n for n, _ in per_call(program)] == called


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_value_is_dead_after_the_last_instruction_that_names_it(seed: int) -> None:
    program = program_of(small_graph(seed))
    kept = set(program.parameters)
    dead = dead_after(program, kept)
    for number, gone in enumerate(dead):
        named = [{*reads(i), *writes(i)} for i in program.instructions]
        later = set().union(*named[number + 1 :], program.outputs, kept, (new for _, new in program.states))
        assert set(gone) == named[number] - later
        assert len(set(gone)) == len(gone)
