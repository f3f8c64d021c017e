"""The cost model: formulas against numbers worked out by hand, and the plan's objective against the program's own."""

import msgspec
import pytest

from unitp.cost import (
    Device,
    Link,
    Machine,
    Rate,
    Stretch,
    collective_seconds,
    copy_seconds,
    operator_seconds,
    view_seconds,
)
from unitp.cost.link import slowest
from unitp.explain.description import light_outputs
from unitp.graph.stored import stored
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.planner.prices.work import Prices
from unitp.program.lower import lower
from unitp.program.objective import objective, predict, predicted_seconds
from unitp.testing.models import tiny

ROUND = Machine(
    flops_per_s=1e9,
    memory_bytes_per_s=1e8,
    operator_s=1.0,
    link_latency_s=0.5,
    link_bytes_per_s=1e6,
    call_s=10.0,
)


def test_an_operator_is_as_slow_as_arithmetic_or_memory():
    assert operator_seconds(ROUND.device(0), flops=4e9, nbytes=1e8) == 4.0 + 1.0
    assert operator_seconds(ROUND.device(0), flops=4e9, nbytes=7e8) == 7.0 + 1.0
    assert copy_seconds(ROUND.device(0), 1e8) == 2.0 + 1.0


@pytest.mark.parametrize(
    "kind,rounds", [("all_reduce", 2), ("reduce_scatter", 1), ("all_gather", 1), ("all_to_all", 1)]
)
def test_a_collective_is_rounds_of_a_ring_and_a_price_per_call(kind, rounds):
    # 4 ranks, 8 MB: three steps a round, each 0.5 s latency and 2 MB at 1 MB/s
    assert collective_seconds(ROUND.link, kind, 4, 8e6) == rounds * 3 * (0.5 + 2.0) + 10.0
    assert collective_seconds(ROUND.link, kind, 1, 8e6) == 0.0


def test_an_all_reduce_costs_one_call_less_than_its_two_halves():
    halves = sum(collective_seconds(ROUND.link, kind, 2, 1e6) for kind in ("reduce_scatter", "all_gather"))
    assert halves - collective_seconds(ROUND.link, "all_reduce", 2, 1e6) == pytest.approx(ROUND.call_s)


CALIBRATED = Device(
    {"float32": 1e9, "float64": 5e8},
    1e8,
    1.0,
    matmul={"float32": ((1.0, 1e8), (100.0, 1e10))},
    operators={"Swish": Rate(2.0, 1e7), "Reshape": Rate(0.5), "MatMul": Rate(3.0)},
    program_s=7.0,
    busy={2: Device({"float32": 5e8}, 5e7, 2.0, program_s=9.0)},
)


def test_what_a_device_knows_of_an_operator_goes_before_what_it_knows_in_general():
    assert operator_seconds(CALIBRATED, 4e9, 1e8, op="Add") == 4.0 + 1.0
    assert operator_seconds(CALIBRATED, 4e7, 1e8, op="Swish") == 4.0 + 2.0
    assert operator_seconds(CALIBRATED, 4e7, 1e8, "float64", "Swish") == 8.0 + 2.0
    assert view_seconds(CALIBRATED, "Reshape") == 0.5
    assert view_seconds(CALIBRATED, "Unsqueeze") == 0.0


@pytest.mark.parametrize("rows, flops", [(1, 1e8), (10, 1e9), (100, 1e10), (1000, 1e10), (0.5, 1e8)])
def test_products_are_as_fast_as_at_their_rows(rows, flops):
    assert operator_seconds(CALIBRATED, 2e10, 1e20, op="MatMul", rows=rows) == pytest.approx(2e10 / flops + 3.0)
    assert operator_seconds(CALIBRATED, 2e10, 0, "float64", "Gemm", rows) == pytest.approx(4e10 / flops + 1.0)


def test_ranks_of_one_host_are_as_fast_as_with_so_many_or_the_nearest_fewer():
    machine = Machine(devices={"a": CALIBRATED})
    speeds = {n: machine.working(0, Mesh(tp=n)).memory_bytes_per_s for n in (1, 2, 3)}
    assert speeds == {1: 1e8, 2: 5e7, 3: 5e7}
    assert [machine.program_s(Mesh(tp=n)) for n in (1, 2)] == [7.0, 9.0]
    nodes = msgspec.structs.replace(machine, network=machine.link, ranks_per_node=1)
    assert nodes.working(0, Mesh(tp=2)) == CALIBRATED


def test_a_kind_of_collective_has_numbers_of_its_own_by_size():
    link = Link(0.5, 1e6, 10.0, {"all_gather": (Stretch(1.0, 1e6, 0.0, 1e6), Stretch(0.0, 2e6, 4.0))})
    assert collective_seconds(link, "all_gather", 2, 1e6) == 1.0 + 0.5
    assert collective_seconds(link, "all_gather", 2, 8e6) == 2.0 + 4.0
    assert collective_seconds(link, "all_to_all", 2, 8e6) == 0.5 + 4.0 + 10.0


def test_the_slowest_of_links_is_so_kind_by_kind_and_size_by_size():
    one = Link(1.0, 10.0, 1.0, {"all_gather": (Stretch(5.0, 1.0, 0.0, 100), Stretch(0.0, 50.0, 0.0))})
    two = Link(2.0, 20.0, 0.0)
    found = slowest([one, two])
    assert found == one.worse(two) == two.worse(one)
    assert (found.latency_s, found.bytes_per_s, found.call_s) == (2.0, 10.0, 1.0)
    assert found.kinds["all_gather"] == (Stretch(5.0, 1.0, 0.0, 100), Stretch(2.0, 20.0, 0.0))


def test_the_hash_tells_machines_apart():
    hashes = {m.hash for m in (Machine(), ROUND, msgspec.structs.replace(Machine(), call_s=31e-6))}
    assert len(hashes) == 3
    assert Machine().hash == Machine().hash


@pytest.fixture(scope="module")
def decoder():
    """Six layers of SmolLM2's widths: enough that communication is worth its price."""
    return tiny(layers=6, width=576, head_dim=64, hidden=1536, vocab=8192, interleaved=False).graph


HOST = Machine(
    devices={
        "cpu": Device(
            {"float32": 1e11},
            2e10,
            4e-6,
            matmul={"float32": ((1.0, 1e10), (16.0, 4e10), (256.0, 9e10))},
            operators={
                "MatMul": Rate(9e-6),
                "Attention": Rate(4e-5, 5e10, 1.2e10),
                "RMSNormalization": Rate(1e-5, None, 6e9),
                "Reshape": Rate(2e-6),
                "Slice": Rate(2e-6),
                "Swish": Rate(1.5e-5, 1e10),
            },
            program_s=3e-4,
            busy={
                2: Device(
                    {"float32": 8e10}, 1e10, 6e-6, matmul={"float32": ((1.0, 8e9), (256.0, 7e10))}, program_s=4e-4
                )
            },
        )
    },
    link_kinds={
        "all_reduce": (Stretch(1e-5, 1e9, 2e-5, 65536), Stretch(2e-5, 2e9, 3e-5)),
        "reduce_scatter": (Stretch(1e-5, 3e9, 1e-5),),
    },
)
"""As calibrated."""


@pytest.mark.parametrize("machine", [Machine(), HOST], ids=["default", "calibrated"])
@pytest.mark.parametrize("mesh", [Mesh(), Mesh(tp=2), Mesh(tp=3), Mesh(tp=4), Mesh(dp=2, tp=2), Mesh(a=2, b=2)])
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_the_objective_of_a_plan_is_what_its_programs_cost(decoder, mesh, machine, weights):
    """Two accounts that share only the price list agree to a thousandth."""
    decoder = stored(decoder, weights)
    made = plan(Request(decoder, mesh, machine=machine))
    programs = [(p.phase.weight, lower(decoder, made, p.phase.name)) for p in made.phases]
    assert objective(programs, machine) == pytest.approx(made.certificate.objective_s, rel=1e-3)
    for (_, program), phase in zip(programs, made.phases, strict=True):
        assert predicted_seconds(program, machine) == pytest.approx(phase.seconds, rel=5e-3)


@pytest.mark.parametrize("mesh", [Mesh(tp=2), Mesh(a=2, b=2)])
def test_planner_and_objective_price_every_instruction_alike(decoder, mesh):
    made = plan(
        Request(decoder, mesh, machine=msgspec.structs.replace(HOST, call_s=0.0, link_latency_s=0.0, link_kinds={}))
    )
    slow = msgspec.structs.replace(HOST.devices["cpu"], operators={"Add": Rate(1e-3)}, matmul={})
    unlike = msgspec.structs.replace(
        HOST, devices={**HOST.devices, "slow": slow}, ranks=("cpu", "slow", *["cpu"] * (mesh.size - 2))
    )
    for machine in (HOST, unlike):
        prices = Prices(machine, mesh)
        for phase in ("prefill", "decode"):
            program = lower(decoder, made, phase)
            for number, seconds in predict(program, machine).instructions.items():
                instruction = program.instructions[number]
                assert prices.instruction(instruction, program.values) == pytest.approx(seconds, rel=1e-9), instruction


def test_decode_takes_megatrons_all_reduces(decoder):
    """Two per layer and one for the embedding; the candidates of a split head are gathered besides."""
    made = plan(Request(decoder, Mesh(tp=2)))
    program = lower(decoder, made, "decode", outputs=light_outputs(decoder))
    kinds = [type(i).__name__ for i in program.instructions]
    assert kinds.count("AllReduce") == 2 * 6 + 1
    assert predict(program, Machine()).collectives == kinds.count("AllReduce") + kinds.count("AllGather")


def test_a_plan_is_priced_by_the_machine_it_is_made_for(decoder):
    fast_links = msgspec.structs.replace(Machine(), call_s=0.0, link_latency_s=0.0, link_bytes_per_s=1e15)
    slow_links = msgspec.structs.replace(Machine(), call_s=1.0)
    spread, kept = (plan(Request(decoder, Mesh(tp=2), machine=m)) for m in (fast_links, slow_links))
    assert spread.certificate.machine == fast_links.hash != kept.certificate.machine
    assert predict(lower(decoder, kept, "decode"), slow_links).collectives == 0
    assert predict(lower(decoder, spread, "decode"), fast_links).collectives > 0
