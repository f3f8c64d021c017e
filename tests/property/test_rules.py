"""The rules are axioms for everything else, so they have a test of their own: random legal plans against the unsharded run.

Random, because a small model planned by cost comes out replicated and tests nothing. Ranks are simulated in this process
by the interpreter that the backends use; float64, judged by the first rule of agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from unitp.comparison.metrics import MEANING
from unitp.engine.operators import DECOMPOSITIONS
from unitp.errors import RankError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.ops import Rule, Term, known_ops, operator, register_line, replaced, unregister
from unitp.mesh import Mesh
from unitp.plugins.hooks import Offer
from unitp.testing import unsharded
from unitp.testing.random_graphs import random_graph
from unitp.testing.random_plans import random_plan
from unitp.testing.single_operators import SINGLE

MESHES = [Mesh(x=2), Mesh(x=3), Mesh(x=4), Mesh(x=2, y=2), Mesh(x=2, y=3)]


def difference(graph: Graph, mesh: Mesh, seed: int, checked: bool = True) -> float:
    """The largest error of any output or state under a random legal plan; inf where an integer differs."""
    return unsharded.difference(graph, random_plan(graph, mesh, seed), "main", seed, checked=checked)


@pytest.mark.timeout(300)
@examples(200)
@given(seed=st.integers(0, 100_000), mesh=st.sampled_from(MESHES))
def test_any_legal_plan_of_a_random_graph_equals_the_unsharded_run(seed: int, mesh: Mesh) -> None:
    assert difference(random_graph(seed), mesh, seed) <= MEANING


@pytest.mark.parametrize("name", SINGLE)
def test_every_operator_alone_equals_the_unsharded_run_under_random_plans(name: str) -> None:
    graph = SINGLE[name]()
    for mesh in MESHES:
        for seed in range(6):
            assert difference(graph, mesh, seed) <= MEANING, f"{mesh}, plan {seed}"


def test_no_operator_is_left_out() -> None:
    covered = {node.op for make in SINGLE.values() for node in make().nodes}
    assert covered == known_ops()


@contextmanager
def planted(op: str, wrong: Callable[[Rule], Rule]) -> Iterator[None]:
    """Operator `op` with its rule passed through `wrong`."""
    true = operator(op)

    def rule(attrs, inputs, outputs) -> Rule:
        return wrong(true.rule(attrs, inputs, outputs))

    with replaced(msgspec.structs.replace(true, rule=rule)):
        yield


def kind(name: str, new: str) -> Callable[[Rule], Rule]:
    """The rule with factor `name` of another kind."""

    def wrong(rule: Rule) -> Rule:
        factors = {f: msgspec.structs.replace(x, kind=new) if f == name else x for f, x in rule.factors.items()}
        return msgspec.structs.replace(rule, factors=factors)

    return wrong


def not_once(rule: Rule) -> Rule:
    return msgspec.structs.replace(rule, once=())


def swapped(rule: Rule) -> Rule:
    """Two dims of the output exchanged in the line."""
    out = list(rule.outputs[0])
    out[0], out[1] = out[1], out[0]
    return msgspec.structs.replace(rule, outputs=(tuple(out), *rule.outputs[1:]))


def ungrouped(rule: Rule) -> Rule:
    """KV heads of attention taken as not split at all: every rank takes the first ones for its own."""
    operands = list(rule.inputs)
    for place in (1, 2):
        terms = list(operands[place] or ())
        terms[1] = Term()
        operands[place] = tuple(terms)
    return msgspec.structs.replace(rule, inputs=tuple(operands))


PLANTED = {
    "MatMul: k is free": ("MatMul", kind("k", "free")),
    "MatMul: k reduces by max": ("MatMul", kind("k", "max")),
    "Gemm: the bias is added on every rank": ("Gemm", not_once),
    "Gemm: k is free": ("Gemm", kind("k", "free")),
    "Softmax: v is free": ("Softmax", kind("d1", "free")),
    "LogSoftmax: v is free": ("LogSoftmax", kind("d1", "free")),
    "RMSNormalization: d is free": ("RMSNormalization", kind("d2", "free")),
    "LayerNormalization: d is free": ("LayerNormalization", kind("d2", "free")),
    "Gather: v is free": ("Gather", kind("v", "free")),
    "TopK: v is free": ("TopK", kind("v", "free")),
    "ArgMax: v is free": ("ArgMax", kind("v", "free")),
    "ReduceSum: the dim is free": ("ReduceSum", kind("d1", "free")),
    "ReduceSum: reduces by max": ("ReduceSum", kind("d1", "max")),
    "ReduceMax: reduces by sum": ("ReduceMax", kind("d1", "sum")),
    "ReduceMean: the dim is a sum": ("ReduceMean", kind("d1", "sum")),
    "Attention: keys are free": ("Attention", kind("t", "free")),
    "Attention: KV heads do not follow": ("Attention", ungrouped),
    "Transpose: output dims swapped": ("Transpose", swapped),
}


def cube() -> Graph:
    """A Transpose whose dims have one size, so that a line with two of them exchanged gives right shapes and wrong numbers."""
    b = Builder("cube")
    return b.graph(b.Transpose(b.input("x", "float32", (2, 2, 2)), perm=(2, 0, 1)))


PLANS = 400
GRAPHS = {"Transpose": cube}
"""Where the small graph of an operator would have a plant seen by its shapes alone."""


def graph_of(op: str) -> Graph:
    return (GRAPHS.get(op) or next(make for make in SINGLE.values() if make().nodes[-1].op == op))()


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_line_is_a_wrong_number(name: str) -> None:
    """Nothing but the comparison with the unsharded run notices: the checker is off, and a rank that fails counts for nothing."""
    op, wrong = PLANTED[name]
    graph = graph_of(op)
    meshes = [Mesh(x=2, y=2)] if op in GRAPHS else MESHES  # even cuts of both dims have right shapes
    with planted(op, wrong):
        errors = (error_or_none(graph, meshes[seed % len(meshes)], seed) for seed in range(PLANS))
        assert any(error > MEANING for error in errors if error is not None), f"{PLANS} plans have right numbers"


def error_or_none(graph: Graph, mesh: Mesh, seed: int) -> float | None:
    """The error of a random plan that nobody checked; None where a rank cannot compute at all."""
    try:
        return difference(graph, mesh, seed, checked=False)
    except RankError:
        return None


@pytest.mark.parametrize("op", sorted({op for op, _ in PLANTED.values()}))
def test_the_true_line_gives_right_numbers_where_wrong_ones_were_planted(op: str) -> None:
    """Else the error above could come from the graph, and not from the plant."""
    graph = graph_of(op)
    assert all(difference(graph, MESHES[seed % len(MESHES)], seed) <= MEANING for seed in range(10))


def test_an_operator_is_sharded_by_its_line_alone(monkeypatch: pytest.MonkeyPatch):
    register_line("Blend", "b s d, d, s -> b s d")

    def blend(p, ctx, x, scale, shift):
        rows = p.reshape(shift, (*p.shape(shift), 1))
        return p.add(p.mul(x, scale), rows)

    monkeypatch.setitem(DECOMPOSITIONS.built_in, "Blend", Offer("Blend", blend, "test", "test", "", ""))
    try:
        b = Builder("blend")
        x = b.input("x", "float32", (2, 5, 7))
        graph = b.graph(b.Blend(x, b.random("scale", (7,), seed=1), b.random("shift", (5,), seed=2)))
        for mesh in MESHES:
            for seed in range(10):
                assert difference(graph, mesh, seed) <= MEANING
        splits = [f for seed in range(10) for f in random_plan(graph, MESHES[-1], seed).phases[0].nodes["blend_0"]]
        assert {"b", "s", "d"} <= set(splits)
    finally:
        unregister("Blend")
