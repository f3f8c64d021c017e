"""Measuring a machine through unitp's own sessions, so that the numbers include the overhead of its engines.

For one rank, and for `ranks` at once, `calibrate` starts a session on the graph of `probes`, times its outputs (`timing`), derives a
device and a link from them (`assemble`, by the fits of `fits`), and then runs a small decoder (`layers`). This room is above
`session`, since it starts sessions; `unitp.cost` is below.

The link is that of the transport that carried the sessions' collectives, and the file names it: a plan is priced right for runs
over the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from typing import Any

import msgspec

from unitp.calibration.assemble import Samples, device_notes, device_of, link_notes, link_of, samples_of
from unitp.calibration.layers import (
    CONFIG,
    layers_plan,
    measure_layers,
    small_decoder,
    with_device,
    with_layers,
)
from unitp.calibration.probes import Parts
from unitp.calibration.timing import measure
from unitp.cost import Machine
from unitp.cost.machine_text import machine_text, rounded
from unitp.errors import InputError
from unitp.session.launch import launch

Tell = Callable[[str, float], None]
"""A function that receives what is being done and the fraction of the whole that is done (0 to 1)."""

NAME = "cpu"
"""The name of the device class in the machine."""
BUDGET_S = {False: 16.0, True: 1.0}
"""Seconds of measuring per session, without and with `quick`; twice that with several ranks."""
LAYER_ROUNDS = {False: 6, True: 1}
"""Rounds of the decoder, without and with `quick`."""


class Calibrated(msgspec.Struct, frozen=True):
    """A machine, and the text of its file with a comment on how each number was measured."""

    machine: Machine
    text: str


def calibrate(
    backend: str,
    ranks: int = 2,
    *,
    quick: bool = False,
    tell: Tell = lambda what, part: None,
    **launching: Any,
) -> Calibrated:
    """Measure this host with a backend: one rank alone, and `ranks` that work at once.

    quick       measure fewer shapes and rounds, for a first look
    tell        is called with the progress
    launching   options of `unitp.launch` (threads, limits, ...)

    Raises InputError for fewer than one rank, and whatever `unitp.launch` raises.
    """
    if ranks < 1:
        raise InputError(f"{ranks} ranks cannot be measured", hint="Give --ranks 1 or more.")
    counts = (1, ranks) if ranks > 1 else (1,)
    machine = Machine(name=f"{backend} on this host")
    alone: Samples = {}
    notes: dict[str, str] = {}
    transport = ""
    steps = 2 * len(counts)
    for place, count in enumerate(counts):

        def say(what: str, part: float, step: int = 2 * place, count: int = count) -> None:
            tell(f"{backend}, {count} rank{'s' if count > 1 else ''}: {what}", (step + min(part, 2.0)) / steps)

        machine, transport = _measure_parts(machine, backend, count, quick, say, launching, alone)
        notes |= device_notes(f"devices.{NAME}" + (f".busy.{count}" if count > 1 else ""), count)
        machine = _measure_layers(machine, backend, count, quick, lambda what, part: say(what, 1 + part), launching)
    if ranks > 1:
        notes |= link_notes(ranks)
    notes = {"": _head(backend, ranks, launching.get("threads", 1), quick, transport), **notes}
    return Calibrated(rounded(machine), machine_text(machine, notes))


def _measure_parts(
    machine: Machine, backend: str, count: int, quick: bool, say: Tell, launching: dict[str, Any], alone: Samples
) -> tuple[Machine, str]:
    """Return the machine with the device (and link) of `count` ranks, and their transport. `alone`: the samples of one rank, filled
    in if `count` is 1.
    """
    parts = Parts(count, quick)
    say("starting", 0.0)
    with launch(parts.graph, parts.plan, backend, **launching) as session:
        times = measure(session, parts, BUDGET_S[quick] * min(count, 2), say)
        transport, runtime = session.transport, session.runtime
    samples = samples_of(parts, times, alone)
    device = device_of(parts, times, samples)
    if count == 1:
        alone |= samples
        return msgspec.structs.replace(machine, devices={NAME: device}), transport
    link = link_of(parts, times)
    machine = with_device(machine, NAME, count, device)
    machine = msgspec.structs.replace(
        machine,
        name=f"{backend} over {runtime} on this host",
        link_latency_s=link.latency_s,
        link_bytes_per_s=link.bytes_per_s,
        call_s=link.call_s,
        link_kinds=link.kinds,
    )
    return machine, transport


def _measure_layers(
    machine: Machine, backend: str, count: int, quick: bool, say: Tell, launching: dict[str, Any]
) -> Machine:
    model = small_decoder()
    say("starting a small decoder", 0.0)
    with launch(model, layers_plan(model, count, machine), backend, context=CONFIG.max_context, **launching) as session:
        rounds = LAYER_ROUNDS[quick]
        layers = measure_layers(session, rounds, lambda n: say(f"decoder layers, round {n}", (n + 1) / (rounds + 2)))
    return with_layers(machine, layers, NAME, count)


def _head(backend: str, ranks: int, threads: int, quick: bool, transport: str) -> str:
    more = (f" --transport {transport}" if transport else "") + (" --quick" if quick else "")
    return (
        f"unitp calibrate --backend {backend} --ranks {ranks}{more}, unitp {version('unitp')}, {date.today().isoformat()}, "
        f"{threads} thread{'s' if threads > 1 else ''} per rank.\n"
        "Interleaved rounds: near the quickest of operators, medians of collectives; seconds, bytes and FLOPs."
    )
