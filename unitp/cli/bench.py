"""`unitp bench`: prefill and decode speed, time in compute and in collectives, bytes moved, memory per rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from unitp.cli.options import (
    Request,
    backend_option,
    json_option,
    model_argument,
    options,
    read_machine,
    running_options,
    token_options,
)
from unitp.cli.output import mebibytes, over, print_json, print_table, progress, say, table

if TYPE_CHECKING:
    from unitp.comparison.breakdown import PhaseTimes
    from unitp.cost import Machine
    from unitp.session.session import Session

TRACED = 3
"""Generations that are traced for the comparison with what was predicted."""


@click.command("bench")
@options(model_argument, backend_option)
@options(*token_options(new=64, least=2))
@options(running_options, json_option)
def command(
    model: str,
    backend: str | None,
    prompt_tokens: int,
    new_tokens: int,
    as_json: bool,
    **running: Any,
) -> None:
    """Measure prefill and decode speed, time in compute and in collectives, bytes moved, memory per rank.

    The number of prompts is the size of axis dp. A first run, in which frameworks compile, is not measured. With --machine,
    further runs are traced, and predicted and measured times are shown by phase and by class of instruction.
    """
    request = Request(model, backend=backend, **running)
    machine = request.value("machine")
    priced = read_machine(machine)
    prompts = sample_prompts(request, prompt_tokens)
    phases: list[PhaseTimes] = []
    with progress() as tell:
        session = request.launch(tell)
        with session:
            tell(f"measuring {len(prompts)} x ({prompt_tokens} + {new_tokens}) tokens")
            found = measure(session, prompts, new_tokens)
            if priced:
                tell("tracing")
                phases = predicted_and_measured(session, prompts, new_tokens, priced)
    if as_json:
        told = {"machine": machine, "phases": [_about(p) for p in phases]} if priced else {}
        print_json({"model": request.model.name, **found, **told})
        return
    rows = table("", ">")
    rows.add("prefill", f"{found['prefill_tokens_per_s']:.0f} tokens/s")
    rows.add("decode", f"{found['decode_tokens_per_s']:.1f} tokens/s")
    rows.add("compute", f"{found['compute_s']:.2f} s")
    rows.add("collectives", f"{found['collective_s']:.2f} s")
    rows.add("calls of collectives", str(found["collectives"]))
    rows.add("bytes moved per rank", mebibytes(found["collective_bytes"]))
    for rank in found["memory"]:
        rows.add(
            f"memory of rank {rank['rank']}",
            f"{mebibytes(rank['measured'])} (predicted {mebibytes(rank['predicted'])})",
        )
    where = over(found["transport"], found["runtime"])
    say(f"{request.model.name} on {found['mesh']}, {found['backend']}, {where}")
    print_table(rows)
    for phase in phases:
        print_phase(phase)


def sample_prompts(request: Request, tokens: int) -> list[list[int]]:
    """One prompt of this many tokens for each coordinate of axis dp. Raises InputError if they cannot run."""
    vocabulary = request.model.decoder.vocab if request.model.decoder else 1
    prompts = [[(7 * i + 11) % vocabulary for i in range(tokens)]] * request.batch
    request.require_prompts(prompts)
    return prompts


def predicted_and_measured(
    session: Session, prompts: list[list[int]], new_tokens: int, machine: Machine
) -> list[PhaseTimes]:
    """One call of each phase, as predicted for the sizes that ran and as measured by tracing some generations."""
    from unitp.comparison.breakdown import breakdown

    machine.require_fits(session.plan.mesh)
    with session.tracing() as calls:
        for _ in range(TRACED):
            for _ in session.generation(prompts, new_tokens, ignore_eos=True):
                pass
    return breakdown(calls, machine)


def _about(phase: PhaseTimes) -> dict[str, Any]:
    return {**msgspec.to_builtins(phase), "error": phase.error}


def print_phase(phase: PhaseTimes) -> None:
    """Print predicted and measured milliseconds of a call, by class of instruction."""
    sizes = ", ".join(f"{name} {size}" for name, size in phase.sizes.items() if name in ("batch", "seq", "live"))
    say("")
    say(
        f"{phase.phase} ({sizes}): predicted {phase.predicted_s * 1e3:.2f} ms, measured {phase.measured_s * 1e3:.2f} ms "
        f"({phase.error:+.1%}), median of {phase.calls}; classes by {phase.basis}"
    )
    rows = table("class", ">count", ">predicted ms", ">measured ms")
    for line in phase.lines:
        count = str(line.count) if line.count else ""
        rows.add(line.name, count, f"{line.predicted_s * 1e3:.3f}", f"{line.measured_s * 1e3:.3f}")
    print_table(rows)


def measure(session: Session, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    """The measurements of one generation, after another has made the programs. The rank that is slowest in collectives counts."""
    from unitp.program.memory import peak

    for _ in session.generation(prompts, new_tokens, ignore_eos=True):
        pass
    before = session.stats()
    generation = session.generation(prompts, new_tokens, ignore_eos=True)
    for _ in generation:
        pass
    after, memory, timing = session.stats(), session.memory(), generation.timing
    predicted = [max(peak(p, rank).peak for p in session.programs) for rank in range(session.plan.mesh.size)]
    total = timing.prefill_s + timing.decode_s
    moving = max(a.collective_s - b.collective_s for a, b in zip(after, before, strict=True))
    return {
        "backend": session.spec.name,
        "transport": session.transport,
        "runtime": session.runtime,
        "mesh": str(session.plan.mesh),
        "dtype": session.dtype,
        "prompt_tokens": timing.prefill_tokens,
        "new_tokens": sum(map(len, generation.tokens)),
        "prefill_tokens_per_s": timing.prefill_tokens_per_s,
        "decode_tokens_per_s": timing.decode_tokens_per_s,
        "seconds": total,
        "collective_s": moving,
        "compute_s": max(total - moving, 0.0),
        "collectives": after[0].collectives - before[0].collectives,
        "collective_bytes": after[0].collective_bytes - before[0].collective_bytes,
        "memory": [
            {"rank": r, "measured": m.now - m.idle, "predicted": p}
            for r, (m, p) in enumerate(zip(memory, predicted, strict=True))
        ],
    }
