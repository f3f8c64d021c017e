"""A call that is refused for what it was given ends no session: on every backend, with ranks that share the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import unitp
from unitp.engine.engine import NotFinite
from unitp.engine.sampling import Sampling
from unitp.errors import InputError, RankError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Plan
from unitp.plugins.discover import backends
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT, TINY, arrays, random_weights, write_huggingface
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


def shared(made: Graph) -> Plan:
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
        right: dict[str, list[float]] = {"at": [0, 12, -13], "back": [0, 13, -12], "factor": [1.0]}
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
    """What a checked run finds first of all."""
    given = {name: np.asarray(inputs[name]).astype(type_.dtype) for name, type_ in session.graph.inputs.items()}
    outputs = tuple(session.graph.outputs)
    return session.cluster.do(lambda _: session.executor.first_not_finite({}, outputs, given))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model in which one number of one weight is none."""
    weights = arrays(random_weights(TINY))
    weights["blk.1.ffn_up.weight"] = weights["blk.1.ffn_up.weight"].copy()
    weights["blk.1.ffn_up.weight"][93, 7] = np.nan
    return write_huggingface(tmp_path_factory.mktemp("planted") / "model", TINY, weights)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", sorted(backends()))
def test_a_generation_names_the_first_operator_whose_output_is_not_finite(backend: str, planted: Path) -> None:
    model = unitp.load(planted)
    with launch(model, plan(Request(model.graph, Mesh(tp=2), machine=EAGER_TO_SPLIT)), backend, context=128) as session:
        for times, sampling in ((2, Sampling()), (1, Sampling(1.0, top_k=5)), (1, Sampling(1.0))):
            tokens = session.generate([5, 6, 7] * 9, 3, sampling=sampling)
            for _ in range(times):  # it does not end as if it were done
                with pytest.raises(RankError) as raised:
                    next(tokens)
                assert "the model's output is nan at new token 0 of sequence 0" in str(raised.value)
                assert "the first operator whose output is not finite is MatMul" in str(raised.value)
                assert "ffn_up.weight" in str(raised.value).replace("up_proj", "ffn_up")
        assert session.probe() == [2.0, 2.0]
