"""`unitp trace`: a prompt and some tokens as a Chrome/Perfetto trace, the prediction beside the measurement."""

from __future__ import annotations

from typing import Any

import rich_click as click

from unitp.cli.bench import sample_prompts
from unitp.cli.options import (
    Request,
    backend_option,
    json_option,
    model_argument,
    options,
    read_machine,
    running_options,
    token_options,
    writable,
)
from unitp.cli.output import over, print_json, progress, say


@click.command("trace")
@options(model_argument, backend_option)
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where the trace is written.")
@options(*token_options(new=4, least=1))
@options(running_options, json_option)
def command(
    model: str,
    backend: str | None,
    output: str,
    prompt_tokens: int,
    new_tokens: int,
    as_json: bool,
    **running: Any,
) -> None:
    """Record what each rank does when, by instruction, beside the prediction; open FILE in ui.perfetto.dev.

    A first run, in which frameworks compile, is not traced. If a framework runs several instructions in one call, the trace
    shows these segments.
    """
    path = writable(output)
    request = Request(model, backend=backend, **running)
    from unitp.cost.record import planned_machine
    from unitp.report import trace

    priced = read_machine(request.value("machine")) or planned_machine(request.plan)
    prompts = sample_prompts(request, prompt_tokens)

    with progress() as tell, request.launch(tell) as session:
        tell(f"tracing {len(prompts)} x ({prompt_tokens} + {new_tokens}) tokens")
        for _ in session.generation(prompts, new_tokens, ignore_eos=True):
            pass
        with session.tracing() as calls:
            for _ in session.generation(prompts, new_tokens, ignore_eos=True):
                pass
    where = over(session.transport, session.runtime)
    title = f"{request.model.name} on {request.plan.mesh}, {request.backend}, {where}"
    trace.save(calls, priced, path, title)
    if as_json:
        about = {"model": request.model.name, "backend": request.backend, "mesh": str(request.plan.mesh)}
        about |= {"transport": session.transport, "runtime": session.runtime}
        print_json({**about, "calls": len(calls), "machine": priced.name, "output": output})
        return
    say(f"{len(calls)} calls of {title}, written to {output}")
