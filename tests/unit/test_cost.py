"""The cost model: formulas against numbers worked out by hand, and the plan's objective against the program's own."""

import msgspec
import pytest

from unitp.cost import Machine, collective_seconds, copy_seconds, operator_seconds
from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.graph.source import RandomSource
from unitp.mesh import Mesh
from unitp.planner import plan
from unitp.planner.explain import light_outputs
from unitp.program.lower import lower
from unitp.program.objective import objective, predict, predicted_seconds

ROUND = Machine(
    flops_per_s=1e9,
    memory_bytes_per_s=1e8,
    operator_s=1.0,
    link_latency_s=0.5,
    link_bytes_per_s=1e6,
    call_s=10.0,
    held_byte_s=1e-9,
)


def test_an_operator_is_as_slow_as_arithmetic_or_memory():
    assert operator_seconds(ROUND, flops=4e9, nbytes=1e8) == 4.0 + 1.0
    assert operator_seconds(ROUND, flops=4e9, nbytes=7e8) == 7.0 + 1.0
    assert copy_seconds(ROUND, 1e8) == 2.0 + 1.0


@pytest.mark.parametrize(
    "kind,rounds", [("all_reduce", 2), ("reduce_scatter", 1), ("all_gather", 1), ("all_to_all", 1)]
)
def test_a_collective_is_rounds_of_a_ring_and_a_price_per_call(kind, rounds):
    # 4 ranks, 8 MB: three steps a round, each 0.5 s latency and 2 MB at 1 MB/s
    assert collective_seconds(ROUND, kind, 4, 8e6) == rounds * 3 * (0.5 + 2.0) + 10.0
    assert collective_seconds(ROUND, kind, 1, 8e6) == 0.0


def test_an_all_reduce_costs_one_call_less_than_its_two_halves():
    halves = sum(collective_seconds(ROUND, kind, 2, 1e6) for kind in ("reduce_scatter", "all_gather"))
    assert halves - collective_seconds(ROUND, "all_reduce", 2, 1e6) == pytest.approx(ROUND.call_s)


def test_the_hash_tells_machines_apart():
    hashes = {m.hash for m in (Machine(), ROUND, msgspec.structs.replace(Machine(), call_s=31e-6))}
    assert len(hashes) == 3
    assert Machine().hash == Machine().hash


@pytest.fixture(scope="module")
def decoder():
    """Six layers of SmolLM2's widths: enough that communication is worth its price."""
    config = LlamaConfig(6, 576, 9, 3, 64, 1536, 8192, 512)
    layer = {
        "attn_norm": (576,),
        "attn_q": (576, 576),
        "attn_k": (192, 576),
        "attn_v": (192, 576),
        "attn_output": (576, 576),
        "ffn_norm": (576,),
        "ffn_gate": (1536, 576),
        "ffn_up": (1536, 576),
        "ffn_down": (576, 1536),
    }
    shapes = {f"blk.{n}.{name}.weight": shape for n in range(6) for name, shape in layer.items()}
    shapes |= {"token_embd.weight": (8192, 576), "output_norm.weight": (576,)}
    return decoder_graph("six", config, {name: RandomSource(1, shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(tp=2), Mesh(tp=3), Mesh(tp=4), Mesh(dp=2, tp=2), Mesh(a=2, b=2)])
def test_the_objective_of_a_plan_is_what_its_programs_cost(decoder, mesh):
    """Two accounts that share only the price list agree to a thousandth."""
    made = plan(decoder, mesh)
    programs = [(p.phase.weight, lower(decoder, made, p.phase.name)) for p in made.phases]
    assert objective(programs, Machine()) == pytest.approx(made.certificate.objective_s, rel=1e-3)
    for (_, program), phase in zip(programs, made.phases, strict=True):
        assert predicted_seconds(program, Machine()) == pytest.approx(phase.seconds, rel=5e-3)


def test_decode_takes_megatrons_all_reduces(decoder):
    """Two per layer and one for the embedding; the candidates of a split head are gathered besides."""
    made = plan(decoder, Mesh(tp=2))
    program = lower(decoder, made, "decode", outputs=light_outputs(decoder))
    kinds = [type(i).__name__ for i in program.instructions]
    assert kinds.count("AllReduce") == 2 * 6 + 1
    assert predict(program, Machine()).collectives == kinds.count("AllReduce") + kinds.count("AllGather")


def test_a_plan_is_priced_by_the_machine_it_is_made_for(decoder):
    fast_links = msgspec.structs.replace(Machine(), call_s=0.0, link_latency_s=0.0, link_bytes_per_s=1e15)
    slow_links = msgspec.structs.replace(Machine(), call_s=1.0)
    spread, kept = (plan(decoder, Mesh(tp=2), machine=m) for m in (fast_links, slow_links))
    assert spread.certificate.machine == fast_links.hash != kept.certificate.machine
    assert predict(lower(decoder, kept, "decode"), slow_links).collectives == 0
    assert predict(lower(decoder, spread, "decode"), fast_links).collectives > 0
