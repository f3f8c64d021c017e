"""`unitp bench`: prefill and decode speed, time in compute and in collectives, bytes moved, memory per rank."""

from __future__ import annotations

from typing import Any

import rich_click as click

from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options
from unitp.cli.output import console, mebibytes, print_json, progress, table
from unitp.errors import InputError
from unitp.program.memory import peak


@click.command("bench")
@options(model_argument, backend_option, running_options)
@click.option("--prompt-tokens", type=int, default=256, show_default=True)
@click.option("--new-tokens", type=int, default=64, show_default=True)
@json_option
def command(
    model: str, backend: str | None, prompt_tokens: int, new_tokens: int, as_json: bool, **running: Any
) -> None:
    """Prefill and decode speed, time in compute and in collectives, bytes moved, memory per rank."""
    request = Request(model, backend=backend, **running)
    if request.model.decoder is None:
        raise InputError(f"{request.model.name} is no language model")
    if prompt_tokens < 1 or new_tokens < 2:
        raise InputError("at least 1 prompt token and 2 new ones are wanted")
    prompts = [
        [(7 * i + 11) % request.model.decoder.vocab for i in range(prompt_tokens)]
    ] * request.plan.mesh.sizes.get("dp", 1)
    with progress(f"starting {request.plan.mesh.size} ranks of {request.value('backend')}"):
        session = request.launch()
    with session:
        for _ in session.generation(prompts, 2, ignore_eos=True):
            pass
        before = session.stats()
        generation = session.generation(prompts, new_tokens, ignore_eos=True)
        for _ in generation:
            pass
        after, memory = session.stats(), session.memory()
        predicted = [max(peak(p, rank).peak for p in session.programs) for rank in range(request.plan.mesh.size)]
    timing = generation.timing
    total = timing.prefill_s + timing.decode_s
    moving = max(a.collective_s - b.collective_s for a, b in zip(after, before, strict=True))
    found = {
        "backend": session.spec.name,
        "mesh": str(request.plan.mesh),
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
    if as_json:
        print_json(found)
        return
    rows = table("", ">")
    rows.add_row("prefill", f"{timing.prefill_tokens_per_s:.0f} tokens/s")
    rows.add_row("decode", f"{timing.decode_tokens_per_s:.1f} tokens/s")
    rows.add_row("compute", f"{max(total - moving, 0.0):.2f} s")
    rows.add_row(
        "collectives",
        f"{moving:.2f} s, {found['collectives']} calls, {mebibytes(float(str(found['collective_bytes'])))}",
    )
    for rank, (m, p) in enumerate(zip(memory, predicted, strict=True)):
        rows.add_row(f"memory of rank {rank}", f"{mebibytes(m.now - m.idle)} (predicted {mebibytes(p)})")
    console().print(f"{request.model.name} on {request.plan.mesh}, {session.spec.name}", highlight=False)
    console().print(rows)
