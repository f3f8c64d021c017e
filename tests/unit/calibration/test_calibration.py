"""Fitting: numbers that were planted come back out of noisy seconds; and what is measured is what the cost model counts."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from unitp.calibration.fits import (
    FASTEST,
    Sample,
    fit_rate,
    fit_rows,
    fit_stretches,
    least_squares,
    seconds_at,
)
from unitp.calibration.layers import (
    LARGE_BYTES,
    Layers,
    layers_plan,
    scaled,
    small_decoder,
    with_layers,
)
from unitp.calibration.probes import HIDDEN, ROWS, WIDTH, Parts
from unitp.calibration.timing import inputs, programs_of
from unitp.cost import Device, Link, Machine, Rate, Stretch, collective_seconds
from unitp.cost.device import at_rows
from unitp.cost.link import KINDS
from unitp.program.analysis import per_call
from unitp.program.check import check
from unitp.program.instructions import Collective
from unitp.program.lower import lower
from unitp.program.objective import predict

NOISE = 0.03


def noisy(seed: int) -> Callable[[float], float]:
    random = np.random.default_rng(seed)
    return lambda seconds: float(seconds * (1 + NOISE * random.standard_normal()))


def test_least_squares_has_no_negative_coefficients() -> None:
    found = least_squares([[1, 1, 1], [1, 2, 3]], [3.0, 2.0, 1.0])
    assert (found >= 0).all()
    assert least_squares([[1, 1, 1], [1, 2, 3]], [5.0, 7.0, 9.0]) == pytest.approx([3.0, 2.0])


@pytest.mark.parametrize("seed", range(5))
def test_overhead_and_bandwidth_of_an_operator_are_found(seed: int) -> None:
    noise, planted = noisy(seed), Rate(8e-6, FASTEST, 5e9)
    samples = [Sample(s, 2 * s, noise(seconds_at(planted, Sample(s, 2 * s, 0)))) for s in (1e3, 1e4, 1e6, 4e6)]
    found = fit_rate(samples)
    assert found.operator_s == pytest.approx(8e-6, rel=0.15)
    assert found.bytes_per_s == pytest.approx(5e9, rel=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_arithmetic_and_memory_are_told_apart(seed: int) -> None:
    """As attention: one query reads its cache, many compute."""
    noise, planted = noisy(seed), Rate(3e-5, 4e10, 1e10)
    work = [(1e6, 1e6), (4e6, 4e6), (2e8, 2e6), (8e8, 4e6)]
    samples = [Sample(f, b, noise(seconds_at(planted, Sample(f, b, 0)))) for f, b in work]
    found = fit_rate(samples)
    assert found.flops_per_s == pytest.approx(4e10, rel=0.15)
    assert found.bytes_per_s == pytest.approx(1e10, rel=0.2)
    for sample in samples:
        assert seconds_at(found, sample) == pytest.approx(sample.seconds, rel=0.12)


def test_seconds_of_nothing_are_an_operator_without_end() -> None:
    found = fit_rate([Sample(0.0, 0.0, 1e-6)])
    assert found.operator_s == pytest.approx(1e-6)
    assert found.bytes_per_s == found.flops_per_s == FASTEST


@pytest.mark.parametrize("seed", range(5))
def test_the_efficiency_of_products_is_found_row_by_row(seed: int) -> None:
    noise, overhead, curve = noisy(seed), 1e-5, {1: 1e10, 16: 4e10, 256: 9e10}

    def sample(rows: int, columns: float) -> Sample:
        flops = 2.0 * rows * WIDTH * columns
        return Sample(flops, 0.0, noise(overhead + flops / curve[rows]))

    single = [sample(1, n) for n in (192, HIDDEN, 16384)]
    found, points = fit_rows(single, [(float(n), sample(n, HIDDEN)) for n in (256, 16)])
    assert [rows for rows, _ in points] == [1.0, 16.0, 256.0]
    assert found == pytest.approx(overhead, rel=0.3)
    for rows, flops in points:
        assert flops == pytest.approx(curve[int(rows)], rel=0.1)
    assert curve[16] * 0.9 < at_rows(points, 64) < curve[256] * 1.1
    assert at_rows(points, 4096) == pytest.approx(points[-1][1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_collective_is_predicted_at_the_sizes_that_were_measured(kind: str, ranks: int) -> None:
    noise, planted = noisy(ranks), Link(2e-5, 1e9, 5e-5)
    sizes = (2304, 36864, 147456, 589824, 1179648)
    samples = [(float(n), noise(collective_seconds(planted, kind, ranks, n))) for n in sizes]
    stretches = fit_stretches(kind, ranks, samples)
    assert len(stretches) == 1
    link = Link(0.0, 1.0, 0.0, {kind: stretches})
    for size, seconds in samples:
        assert collective_seconds(link, kind, ranks, size) == pytest.approx(seconds, rel=0.1)


def test_a_bent_line_becomes_two_stretches() -> None:
    samples = [(2e3, 4e-4), (3e4, 4.1e-4), (1.2e5, 4.4e-4), (3e5, 2e-3), (6e5, 3.1e-3), (1.2e6, 5.2e-3)]
    stretches = fit_stretches("all_reduce", 2, samples)
    assert len(stretches) == 2
    assert 1.2e5 < stretches[0].up_to < 3e5
    link = Link(0.0, 1.0, 0.0, {"all_reduce": stretches})
    for size, seconds in samples:
        assert collective_seconds(link, "all_reduce", 2, size) == pytest.approx(seconds, rel=0.12)


# what is measured


@pytest.fixture(scope="module", params=[1, 2, 3])
def parts(request: pytest.FixtureRequest) -> Parts:
    return Parts(request.param)


def test_every_program_of_a_calibration_is_right_and_fed(parts: Parts) -> None:
    for made in programs_of(parts):
        program = lower(parts.graph, parts.plan, "main", {"rows": made.rows}, (made.output,))
        check(program, parts.graph, outputs=(made.output,))
        assert {n: a.shape for n, a in inputs(made.rows).items() if n in program.inputs} == {
            n: program.values[n].shape for n in program.inputs
        }


def test_a_difference_counts_what_the_cost_model_counts(parts: Parts) -> None:
    """With operators that cost their bytes alone, and then their FLOPs alone, the difference of two chains is what it says."""
    bytes_only = Machine(devices={"a": Device({"float32": 1e30}, 1.0, 0.0)}, call_s=0.0, link_latency_s=0.0)
    flops_only = Machine(devices={"a": Device({"float32": 1.0}, 1e30, 0.0)}, call_s=0.0, link_latency_s=0.0)
    seconds: dict[tuple[str, int, bool], float] = {}

    def compute(output: str, rows: int, machine: Machine) -> float:
        key = (output, rows, machine is bytes_only)
        if key not in seconds:
            program = lower(parts.graph, parts.plan, "main", {"rows": rows}, (output,))
            seconds[key] = predict(program, machine).compute_s
        return seconds[key]

    for d in parts.differences:
        if d.what in KINDS:
            continue
        beside = 3 * d.additions
        moved = (compute(d.more, d.rows, bytes_only) - compute(d.less, d.rows, bytes_only)) / d.times
        work = (compute(d.more, d.rows, flops_only) - compute(d.less, d.rows, flops_only)) / d.times
        element = np.dtype(d.dtype).itemsize
        assert moved == pytest.approx(
            (d.bytes + beside * d.rows * WIDTH * 4) * element / 4, rel=0.01, abs=4 * element * WIDTH
        ), d
        assert work == pytest.approx(d.flops + (d.rows * WIDTH if beside else 0), rel=0.05), d


def test_collectives_are_as_many_and_as_large_as_a_difference_says(parts: Parts) -> None:
    for d in parts.differences:
        if d.what not in KINDS:
            continue
        program = lower(parts.graph, parts.plan, "main", {"rows": d.rows}, (d.more,))
        found = [i for _, i in per_call(program) if isinstance(i, Collective)]
        assert len(found) == d.times
        own = msgspec.structs.replace(Machine(), call_s=0.0, link_latency_s=0.0)
        each = predict(program, own).collectives_s / d.times
        assert each == pytest.approx(collective_seconds(own.link, d.what, parts.ranks, d.bytes), rel=0.35)
        less = lower(parts.graph, parts.plan, "main", {"rows": d.less_rows or d.rows}, (d.less,))
        assert not [i for _, i in per_call(less) if isinstance(i, Collective)]
        if d.what != "all_to_all":
            assert predict(program, own).compute_s == pytest.approx(predict(less, own).compute_s, rel=0.1)


def test_rows_of_a_prefill_are_among_those_measured() -> None:
    assert {d.rows for d in Parts(1).differences if d.what == "MatMul"} >= {1, 16, ROWS}


@pytest.mark.parametrize("small, large", [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5), (2.0, 3.0), (0.5, 0.75)])
def test_collectives_are_scaled_by_size(small: float, large: float) -> None:
    stretch = Stretch(1e-5, 1e9, 2e-5)

    def seconds(s: Stretch, size: float) -> float:
        return s.latency_s + s.call_s + size / s.bytes_per_s

    made = scaled(stretch, small, large)
    assert seconds(made, 0.0) == pytest.approx(small * seconds(stretch, 0.0))
    assert seconds(made, LARGE_BYTES) == pytest.approx(large * seconds(stretch, LARGE_BYTES))
    short = msgspec.structs.replace(stretch, up_to=1e4)
    assert seconds(scaled(short, small, large), 1e4) == pytest.approx(small * seconds(short, 1e4))


def layers_as_if(machine: Machine, ranks: int, more: float) -> Layers:
    """What layers would take if everything were as `machine` says, and collectives `more` times as slow."""
    model = small_decoder()
    made = layers_plan(model, ranks, machine)
    programs = prefill, decode = [lower(model.graph, made, name) for name in ("prefill", "decode")]
    took = [(p := predict(program, machine)).seconds + (more - 1) * p.collectives_s for program in programs]
    return Layers(took[0], took[1], prefill, decode)


@pytest.mark.parametrize("more", [1.0, 1.6])
def test_what_layers_leave_is_the_collectives(more: float) -> None:
    device = Device({"float32": 1e11}, 2e10, 5e-6, operators={"TensorScatter": Rate(2e-5, None, 1e9)})
    kinds: dict[str, tuple[Stretch, ...]] = {kind: (Stretch(1e-5, 1e9, 2e-5),) for kind in KINDS}
    machine = Machine(devices={"cpu": msgspec.structs.replace(device, busy={2: device})}, link_kinds=kinds)
    layers = layers_as_if(machine, 2, more)
    found = with_layers(machine, layers, "cpu", 2)
    for program, seconds in ((layers.prefill, layers.prefill_s), (layers.decode, layers.decode_s)):
        assert predict(program, found).seconds == pytest.approx(seconds, rel=0.02)


def test_what_layers_take_beyond_all_else_is_writing_caches() -> None:
    machine = Machine(devices={"cpu": Device({"float32": 1e11}, 2e10, 5e-6)})
    slow = Device({"float32": 1e11}, 2e10, 5e-6, operators={"TensorScatter": Rate(8e-5, None, 5e8)})
    layers = layers_as_if(Machine(devices={"cpu": slow}), 1, 1.0)
    rate = with_layers(machine, layers, "cpu", 1).devices["cpu"].operators["TensorScatter"]
    assert rate.operator_s == pytest.approx(8e-5, rel=0.1)
    assert rate.bytes_per_s == pytest.approx(5e8, rel=0.1)
