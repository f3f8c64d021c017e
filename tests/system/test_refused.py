"""A call that is refused for what it was given ends no session: on every backend, with ranks that share the work."""

from __future__ import annotations

import numpy as np
import pytest

from unitp.errors import InputError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.plugins.discover import backends
from unitp.program.engine import NotFinite
from unitp.runtime.launch import launch
from unitp.runtime.messages import Check, Checked
from unitp.runtime.session import Session
from unitp.testing.random_plans import random_plan

pytestmark = pytest.mark.system


def graph() -> Graph:
    """Rows of a table at a given and at a computed place, and a product that overflows where the factor is large."""
    b = Builder("rows")
    table = b.random("table", (13, 7), seed=1)
    at, factor = b.input("at", "int64", (3,)), b.input("factor", "float32", (1,))
    rows = b.Add(b.Gather(table, at, axis=0), b.Gather(table, b.Neg(b.input("back", "int64", (3,))), axis=0))
    large = b.Mul(rows, factor)
    return b.graph(b.MatMul(b.Mul(large, large), b.random("w", (7, 4), seed=2)))


def shared(made: Graph) -> object:
    """A plan that splits the vocabulary of both look-ups."""
    for seed in range(1000):
        plan = random_plan(made, Mesh(tp=2), seed)
        looked_up = [plan.phases[0].nodes[node.name] for node in made.nodes if node.op == "Gather"]
        if all("v" in splits and not any(a == b for a, b in splits["v"].intervals) for splits in looked_up):
            return plan
    raise AssertionError("no random plan splits both look-ups")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", sorted(backends()))
def test_the_session_lives_on(backend: str) -> None:
    made = graph()
    with launch(made, shared(made), backend=backend) as session:
        right = {"at": [0, 12, -13], "back": [0, 13, -12], "factor": [1.0]}
        first = session.run(right)
        for name, strange, says in (
            ("at", 13, 'at has 13 at [1], but as index of Gather "gather_0" legal are -13 to 12'),
            ("at", -14, 'at has -14 at [1], but as index of Gather "gather_0" legal are -13 to 12'),
            ("back", -13, 'the graph has 13 at [1], but as index of Gather "gather_2" legal are -13 to 12'),
            ("back", 10**6, 'the graph has -1000000 at [1], but as index of Gather "gather_2" legal are -13 to 12'),
        ):
            with pytest.raises(InputError) as raised:
                session.run(right | {name: [0, strange, 1]})
            assert says in str(raised.value)
        for output, array in session.run(right).items():
            np.testing.assert_array_equal(array, first[output])
        assert checked(session, right) is None
        found = checked(session, right | {"factor": [1e30]})
        assert found is not None
        assert found.operator == "Mul"
        assert "inf at [" in found.what
        np.testing.assert_array_equal(session.run(right)[made.outputs[0]], first[made.outputs[0]])


def checked(session: Session, inputs: dict[str, list[float]]) -> NotFinite | None:
    """A checked run of the one program of a session: what its ranks find first of all."""
    (parts,) = session._parts.values()
    arrays = {name: np.asarray(inputs[name]).astype(type_.dtype) for name, type_ in session.graph.inputs.items()}
    session.cluster.outbox.clear()
    messages = {}
    for ranks, cuts in parts.groups:
        given = {name: session.cluster.outbox.put(arrays[name][cut]) for name, cut in cuts.items()}
        messages |= {rank: Check(parts.key, given) for rank in ranks}
    replies = session.cluster.ask(messages).values()
    found = [reply.found for reply in replies if isinstance(reply, Checked) and reply.found is not None]
    assert all(isinstance(reply, Checked) for reply in replies)
    return min(found, key=lambda one: one.instruction, default=None)
