"""`unitp plan`: decide how a model is split over a mesh, and write it down."""

from __future__ import annotations

from typing import Literal

import msgspec
import rich_click as click

from unitp.cli.options import (
    Settings,
    json_option,
    machine_option,
    mesh_option,
    model_argument,
    options,
    parse_mesh,
    parse_phase,
    read_machine,
    unused_option,
    weights_option,
    writable,
)
from unitp.cli.output import print_json, progress, say


@click.command("plan")
@options(model_argument, mesh_option, machine_option)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="NAME:SIZES",
    help="Sizes to plan for and their weight, as in decode:batch=1,seq=1,cache=1024,weight=200; give it once for each phase.",
)
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="PIN",
    help='A choice to keep, as in "blk.*.ffn_down.weight: S(1)@tp"; give it once for each.',
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="What a rank may need at most: weights, caches and the largest live set, as in 8GiB.",
)
@click.option(
    "--objective",
    type=click.Choice(["time", "memory"]),
    default="time",
    show_default=True,
    help="What is made least: predicted time, or the memory of the rank that needs most and then time.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="SECONDS",
    help="When to stop searching; the plan then says how far from the best it may be.",
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Where the plan is written.")
@options(weights_option, unused_option, json_option)
def command(
    model: str,
    mesh: str | None,
    machine: str | None,
    phases: tuple[str, ...],
    pins: tuple[str, ...],
    memory_limit: str | None,
    objective: Literal["time", "memory"],
    time_limit: float | None,
    output: str | None,
    weights: str | None,
    allow_unused: bool,
    as_json: bool,
) -> None:
    """Decide how MODEL is split over a mesh.

    MODEL is a known name, a .gguf file, or a Hugging Face directory. Without --phase: prefill (512 tokens, weight 1) and decode
    (one token, a cache of 1024, weight 200), each for as many prompts as axis dp has coordinates.
    """
    settings = Settings(mesh=mesh, machine=machine, weights=weights)
    wanted = parse_mesh(settings.value("mesh"))
    priced_on = read_machine(settings.value("machine"))
    if priced_on:
        priced_on.require_fits(wanted)
    chosen = [parse_phase(text) for text in phases] or None
    path = writable(output) if output else None
    from unitp.api import plan
    from unitp.cli.show import print_description
    from unitp.cost.bytes import parse_bytes
    from unitp.explain.description import describe
    from unitp.frontends import load
    from unitp.graph.stored import as_planned
    from unitp.plan_file import save

    limit = parse_bytes(memory_limit) if memory_limit else None
    with progress() as tell:
        tell(f"loading {model}")
        loaded = load(model)
        tell(f"planning {loaded.name} on {wanted}")
        made = plan(
            loaded,
            wanted,
            chosen,
            allow_unused=allow_unused,
            pins=pins,
            machine=priced_on,
            memory_limit=limit,
            objective=objective,
            time_limit=time_limit,
            weights=settings.value("weights"),
        )
    if path:
        save(made, path)
    if as_json:
        about = {
            "model": made.model,
            "graph": made.graph,
            "mesh": str(made.mesh),
            "phases": {
                p.phase.name: {**p.phase.sizes, "weight": p.phase.weight, "seconds": p.seconds} for p in made.phases
            },
            "output": output or "",
        }
        print_json({**msgspec.to_builtins(made.certificate), **about})
        return
    print_description(made, describe(made, as_planned(loaded.graph, made.graph)))
    if output:
        say(f"written to {output}")
