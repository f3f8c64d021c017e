"""Layers with experts: the expert dim is a factor like any other, and what a file lacks of it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import unitp
from unitp.comparison.metrics import MEANING, relative_error
from unitp.errors import GraphError, ModelError
from unitp.frontends.builder import Builder
from unitp.frontends.configs import known_config
from unitp.graph.graph import Graph
from unitp.graph.source import RangeSource
from unitp.graph.weights import read, shape_of
from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.planner import Request, default_phases, plan
from unitp.plans import Phase, Plan, unsplit
from unitp.program.check import check
from unitp.program.instructions import AllReduce, Program
from unitp.program.lower import lower
from unitp.testing.models import EAGER_TO_SPLIT, SMALL, random_weights, tiny, write_huggingface
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import simulate

CONFIG = msgspec.structs.replace(SMALL, hidden=20, experts=5, chosen=2, tied=False)
SIZES = {"batch": 2, "seq": 3, "cache": 4, "live": 4, "take": 3, "candidates": 2}
EXPERTS = "blk.0.ffn_gate_exps.weight"


def graph_of(**more: Any) -> Graph:
    return tiny(CONFIG, **more).graph


def run(graph: Graph, program: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    feeds = {
        "input_ids": rng.integers(0, CONFIG.vocab, (2, 3)), "position_ids": np.tile(np.arange(3), (2, 1)),
        "write_indices": np.zeros(2, np.int64), "kv_length": np.full(2, 3), "logits_index": np.tile(np.arange(3), (2, 1)),
    }  # fmt: skip
    weights = {p.name: read(p.source, [(0, n) for n in shape_of(p.source)], "float64") for p in graph.parameters}
    weights["expert_ids"] = weights["expert_ids"].astype(np.int64)
    states = {s.input: np.zeros(s.type.sized(SIZES)) for s in graph.states}
    return simulate(program, feeds, weights, states).outputs


def by_experts(graph: Graph, ranks: int) -> Plan:
    """Only the experts are split: each rank has some of them, and a sum over ranks ends the block."""
    split = Split(("tp",), cuts(ranks, CONFIG.experts))
    made = unsplit(graph, [Phase("main", SIZES)])
    parameters = {
        n: Layout((split, *lay.dims[1:])) if "_exps" in n or n == "expert_ids" else lay
        for n, lay in made.parameters.items()
    }
    nodes = {}
    for node in graph.nodes:
        equation = node.attrs.get("equation")
        if equation is not None:
            nodes[node.name] = {"e": split}
        elif "ffn_down_exps" in str(node.inputs):
            nodes[node.name] = {"d0": split}
    (phase,) = made.phases
    phases = (msgspec.structs.replace(phase, nodes=nodes),)
    return msgspec.structs.replace(made, mesh=Mesh(tp=ranks), parameters=parameters, phases=phases)


@pytest.mark.parametrize("ranks", [2, 3, 5, 7])
def test_experts_are_split_over_ranks_and_one_sum_ends_the_block(ranks: int) -> None:
    """Five experts: unevenly over two and three ranks; of seven ranks two have none."""
    graph = graph_of()
    made = by_experts(graph, ranks)
    program = lower(graph, made, "main", dtype="float64")
    check(program, graph)
    assert [type(i) for i in program.instructions].count(AllReduce) == 1
    wanted = run(graph, lower(graph, unsplit(graph, [Phase("main", SIZES)]), "main", dtype="float64"))
    found = run(graph, program)
    assert relative_error(found["logits"], wanted["logits"]) <= MEANING
    assert np.array_equal(found["top_ids"], wanted["top_ids"])


@pytest.mark.parametrize("mesh", [Mesh(tp=3), Mesh(dp=2, tp=2), Mesh(tp=2, x=2)], ids=str)
def test_any_legal_plan_of_a_mixture_equals_the_unsharded_run(mesh: Mesh) -> None:
    graph = graph_of()
    wanted = run(graph, lower(graph, unsplit(graph, [Phase("main", SIZES)]), "main", dtype="float64"))
    for seed in range(12):
        program = lower(graph, random_plan(graph, mesh, seed, SIZES), "main", dtype="float64")
        check(program, graph)
        found = run(graph, program)  # outputs that were converted have names of their own
        (logits,) = [found[name] for name in program.outputs if name.split("@")[0] == "logits"]
        assert relative_error(logits, wanted["logits"]) <= MEANING


def test_a_token_that_an_expert_was_not_chosen_for_does_not_feel_it() -> None:
    """With all experts chosen, every expert counts; with one, its share is one."""
    graph = graph_of(chosen=1)
    program = lower(graph, unsplit(graph, [Phase("main", SIZES)]), "main", dtype="float64")
    shares = next(
        n for n in graph.nodes if n.op == "Unsqueeze" and n.attrs["axes"] == (3,) and "reducesum" in n.inputs[0]
    )
    probe = msgspec.structs.replace(program, outputs=(shares.inputs[0],))
    found = run(graph, probe)[shares.inputs[0]]
    assert found.shape == (2, 3, 5)
    assert np.array_equal(np.sort(found, -1), np.tile([0, 0, 0, 0, 1.0], (2, 3, 1)))


def test_the_planner_splits_experts_by_itself() -> None:
    graph = known_config("mixtral-8x7b").graph
    made = plan(Request(graph, Mesh(tp=8)))
    assert str(made.parameters[EXPERTS]) == "tp[0:1 1:2 2:3 3:4 4:5 5:6 6:7 7:8],-,-"
    assert made.certificate.fastest_s == made.certificate.lower_bound_s


def test_all_experts_are_paid_for_since_all_are_computed() -> None:
    """What is predicted does not depend on how many experts a token chooses, but on how many there are."""

    def seconds(**more: int) -> float:
        graph = graph_of(hidden=2000, width=240, head_dim=60, **more)
        return plan(Request(graph, Mesh(), default_phases(graph, Mesh()), machine=EAGER_TO_SPLIT)).phases[0].seconds

    assert seconds(chosen=4) == pytest.approx(seconds(chosen=1), rel=0.01)
    assert seconds(experts=10) > 1.5 * seconds(experts=5)


# files


def folder(at: Path, **more: Any) -> Path:
    return write_huggingface(at / "mix", CONFIG, architecture="MixtralForCausalLM", **more)


def test_experts_of_a_file_become_one_tensor(tmp_path: Path) -> None:
    source = unitp.load(folder(tmp_path)).graph.parameter(EXPERTS).source
    assert shape_of(source) == (5, 20, 32)
    wanted = read(random_weights(CONFIG)[EXPERTS], [(0, 5), (0, 20), (0, 32)])
    assert np.array_equal(read(source, [(1, 4), (3, 20), (0, 7)]), wanted[1:4, 3:20, 0:7])
    assert read(source, [(2, 2), (0, 20), (0, 32)]).shape == (0, 20, 32)


@pytest.mark.parametrize(
    "lost,message",
    [
        ("experts.2.w1", "experts.*.w1.weight is there for 0, 1, 3, 4"),
        ("experts.4.w2", 'experts.*.w2.weight" has shape [4, 32, 20] but must have [5, 32, 20]'),
        ("gate", 'block_sparse_moe.gate.weight" is missing'),
    ],
)
def test_missing_experts_are_named(tmp_path: Path, lost: str, message: str) -> None:
    from safetensors.numpy import load_file, save_file

    at = folder(tmp_path)
    tensors = load_file(at / "model.safetensors")
    del tensors[f"model.layers.0.block_sparse_moe.{lost}.weight"]
    save_file(tensors, at / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        unitp.load(at)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "more,message",
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok is 6 but must be at most num_local_experts, 5"),
        ({"num_local_experts": None}, "num_local_experts is missing"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
    ],
)
def test_a_config_of_experts_that_cannot_be_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    at = folder(tmp_path)
    about = json.loads((at / "config.json").read_text()) | more
    (at / "config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=message):
        unitp.load(at)


# einsum


@pytest.mark.parametrize("equation", ["ij,jk", "ij->i", "ii,ij->j", "...ij,jk->ik", "ij,kl->ik", "ij,jk->im", ""])
def test_what_einsum_is_not_known_for_is_refused(equation: str) -> None:
    b = Builder("e")
    x = b.input("x", "float32", (3, 3))
    with pytest.raises(GraphError, match="is not supported: it must have two operands"):
        b.Einsum(x, b.input("y", "float32", (3, 3)), equation=equation)


def test_numbers_below_a_stop_are_cut_like_any_parameter() -> None:
    assert read(RangeSource(8), [(3, 6)], "int64").tolist() == [3, 4, 5]
