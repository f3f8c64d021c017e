"""Correcting a machine by whole decoder layers: their time minus that of their parts is what chains of operators do not show.

A small decoder runs a prompt and some tokens, as `unitp bench` does. Only a graph with states writes caches in place, so the price
of that is measured here: by the clock of the ranks, if they report single instructions. If not, the time of a decode step minus
everything else is the overhead of its TensorScatters, and the time of a prefill minus everything else is that of their bytes.
Collectives wait longest between the operators of real layers, so they are scaled to the time that the layers leave for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from unitp.calibration.fits import FASTEST
from unitp.calibration.timing import QUICK
from unitp.comparison.breakdown import INSTRUCTIONS, basis_of, seconds_of_marks
from unitp.cost import Device, Machine, Rate, Stretch
from unitp.frontends.llama import LlamaConfig, decoder_graph, weight_shapes
from unitp.frontends.model import Decoder, Model
from unitp.graph.graph import Graph
from unitp.graph.ops import OPERATORS, operator
from unitp.graph.source import RandomSource
from unitp.mesh import Mesh
from unitp.planner import Request
from unitp.planner import plan as plan_graph
from unitp.plans import Phase, Plan
from unitp.program.analysis import per_call
from unitp.program.instructions import Instruction, Local, Program
from unitp.program.objective import Prediction, predict
from unitp.session.session import Session, TracedCall

CONFIG = LlamaConfig(
    layers=4, width=576, heads=9, kv_heads=3, head_dim=64, hidden=1536, vocab=4096, max_context=1024, interleaved=True
)
PROMPT, TOKENS = 256, 12
LEAST_SCALE, MOST_SCALE = 0.5, 3.0
"""Limits of the factor between collectives in decoder layers and collectives in chains of products."""
LARGE_BYTES = 4.0 * PROMPT * CONFIG.width
"""Bytes of a collective in a prefill."""
QUICK_SMALL = 0.5
"""The quantile that stands for one of many short instructions."""


SCATTER = next(name for name, offer in OPERATORS.built_in.items() if offer.value.written is not None)
"""The operator that writes the rows of a call into a cache."""


def is_scatter(instruction: Instruction) -> bool:
    """Say whether an instruction writes into a cache."""
    return isinstance(instruction, Local) and operator(instruction.op).written is not None


def small_decoder(config: LlamaConfig = CONFIG) -> Model:
    """Return a language model with random weights."""
    sources = {}
    for seed, (name, shape) in enumerate(weight_shapes(config)):
        norm = "norm" in name
        sources[name] = RandomSource(seed, shape, 0.1 if norm else shape[-1] ** -0.5, 1.0 if norm else 0.0)
    graph: Graph = decoder_graph("layers", config, sources)
    return Model("layers", graph, Decoder(config.max_context, config.vocab, ()))


def layers_plan(model: Model, ranks: int, machine: Machine) -> Plan:
    """Return a plan priced on the machine as known so far, but with collectives that cost nothing, so that all ranks are used."""
    free = msgspec.structs.replace(
        machine, call_s=0.0, link_latency_s=0.0, link_bytes_per_s=1e12, axes={}, link_kinds={}
    )
    sizes = {"batch": 1, "seq": PROMPT, "cache": 1024, "live": PROMPT, "take": 1, "candidates": 1}
    decode = {**sizes, "seq": 1, "live": 2 * PROMPT}
    phases = [Phase("prefill", sizes), Phase("decode", decode, 200.0)]
    return plan_graph(
        Request(model.graph, Mesh(tp=ranks) if ranks > 1 else Mesh(), phases, machine=free, model=model.name)
    )


class Layers(NamedTuple):
    """Seconds of one call of prefill and decode, as the driver sees them, the programs, and the seconds of one TensorScatter.

    The last two are None if ranks report only segments.
    """

    prefill_s: float
    decode_s: float
    prefill: Program
    decode: Program
    prefill_scatter_s: float | None = None
    decode_scatter_s: float | None = None


def measure_layers(session: Session, rounds: int, say: Callable[[int], None]) -> Layers:
    """Time a session on the small decoder for `rounds` rounds; `say` is called with the number of each round."""
    prompt = [(7 * i + 11) % CONFIG.vocab for i in range(PROMPT)]
    found: dict[str, list[TracedCall]] = {"prefill": [], "decode": []}
    for number in range(rounds + 1):
        say(number)
        with session.tracing() as calls:
            for _ in session.generation([prompt], TOKENS, ignore_eos=True):
                pass
        for call in calls if number else ():
            found["decode" if call.program.sizes["seq"] == 1 else "prefill"].append(call)
    quick = 0.5 if session.plan.mesh.size > 1 else QUICK
    prefill, decode = (
        float(np.quantile([(call.ended - call.begun) / 1e9 for call in calls], quick)) for calls in found.values()
    )
    programs = found["prefill"][0].program, found["decode"][0].program
    scatters = _scatter_seconds(found["prefill"]), _scatter_seconds(found["decode"])
    return Layers(prefill, decode, *programs, *scatters)


def _scatter_seconds(calls: list[TracedCall]) -> float | None:
    """Return the seconds of one TensorScatter, by the clock of the ranks; None if ranks report only segments."""
    program = calls[0].program
    if basis_of(calls[0], program) != INSTRUCTIONS:
        return None
    numbers = [n for n, i in per_call(program) if is_scatter(i)]
    return float(np.quantile([s for call in calls for s in seconds_of_marks(call, numbers)], QUICK_SMALL))


def with_layers(machine: Machine, layers: Layers, name: str, ranks: int) -> Machine:
    """Return the machine with the price of writing caches and, for several ranks, of collectives between operators of layers."""
    made = _with_caches(machine, layers, name, ranks)
    return made if ranks == 1 else _with_waits(made, layers)


def _with_caches(machine: Machine, layers: Layers, name: str, ranks: int) -> Machine:
    """Return the machine with the price of writing caches.

    If ranks report only segments, several ranks have the price of one rank alone, and the rest of the time is for collectives.
    """
    device, solo = machine.devices[name].among(ranks), machine.devices[name].operators.get(SCATTER)
    scatters = _scatters(layers.decode)
    overhead = layers.decode_scatter_s
    if overhead is None:
        if ranks > 1 and solo is not None:
            return with_device(machine, name, ranks, _with_scatter(device, solo))
        overhead = max((layers.decode_s - predict(layers.decode, machine).seconds) / scatters, 0.0)
    machine = with_device(machine, name, ranks, _with_scatter(device, Rate(overhead)))
    size = 2 * 4.0 * PROMPT * CONFIG.kv_heads * CONFIG.head_dim
    left = (
        layers.prefill_s - predict(layers.prefill, machine).seconds
        if layers.prefill_scatter_s is None
        else (layers.prefill_scatter_s - overhead) * scatters
    )
    rate = min(size * scatters / left, device.memory_bytes_per_s) if left > 0 else device.memory_bytes_per_s
    return with_device(machine, name, ranks, _with_scatter(device, Rate(overhead, None, rate)))


def _with_waits(machine: Machine, layers: Layers) -> Machine:
    """Scale collectives to the time that layers leave for them: small ones by a decode step, large ones by a prefill."""
    small, large = (
        _scale(predict(program, machine), seconds)
        for program, seconds in ((layers.decode, layers.decode_s), (layers.prefill, layers.prefill_s))
    )
    kinds = {kind: tuple(scaled(s, small, large) for s in stretches) for kind, stretches in machine.link_kinds.items()}
    general = kinds["all_reduce"][0]
    return msgspec.structs.replace(
        machine,
        link_kinds=kinds,
        link_latency_s=general.latency_s,
        link_bytes_per_s=general.bytes_per_s,
        call_s=general.call_s,
    )


def _scale(prediction: Prediction, seconds: float) -> float:
    """Return the time that a call leaves for its collectives, as a multiple of the predicted time and within limits."""
    if prediction.collectives_s <= 0:
        return 1.0
    left = seconds - (prediction.seconds - prediction.collectives_s)
    return min(max(left / prediction.collectives_s, LEAST_SCALE), MOST_SCALE)


def scaled(stretch: Stretch, small: float, large: float) -> Stretch:
    """Return a stretch that takes `small` times as long without bytes, and `large` times as long with the bytes of a prefill."""
    if stretch.up_to < LARGE_BYTES:
        large = small
    fixed = stretch.latency_s + stretch.call_s
    moving = LARGE_BYTES / stretch.bytes_per_s
    slope = max(large * (fixed + moving) - small * fixed, 0.05 * moving) / moving
    return Stretch(
        stretch.latency_s * small, min(stretch.bytes_per_s / slope, FASTEST), stretch.call_s * small, stretch.up_to
    )


def with_device(machine: Machine, name: str, ranks: int, device: Device) -> Machine:
    """Return the machine with another device for the case that this many ranks work."""
    solo = machine.devices[name]
    made = (
        msgspec.structs.replace(device, busy=solo.busy)
        if ranks == 1
        else msgspec.structs.replace(solo, busy={**solo.busy, ranks: device})
    )
    return msgspec.structs.replace(machine, devices={**machine.devices, name: made})


def _with_scatter(device: Device, rate: Rate) -> Device:
    return msgspec.structs.replace(device, operators={**device.operators, SCATTER: rate})


def _scatters(program: Program) -> int:
    return sum(is_scatter(i) for _, i in per_call(program))
