"""`unitp plan`: decide how a model is split over a mesh, and write it down."""

from __future__ import annotations

import msgspec
import rich_click as click

from unitp.cli.options import get_plan, json_option, mesh_option, model_argument, options, parse_phase, unused_option
from unitp.cli.output import console, print_json
from unitp.cli.show import print_description
from unitp.config import settings


@click.command("plan")
@options(model_argument, mesh_option)
@click.option(
    "--phase", "phases", multiple=True, metavar="NAME:SIZES", help="As in decode:batch=1,seq=1,cache=1024,weight=200."
)
@click.option("-o", "--output", type=click.Path(), help="Where the plan is written.")
@options(unused_option, json_option)
def command(
    model: str, mesh: str | None, phases: tuple[str, ...], output: str | None, allow_unused: bool, as_json: bool
) -> None:
    """Decide how MODEL is split over a mesh.

    MODEL is a known name, a .gguf file, or a Hugging Face directory. Without --phase: prefill (512 tokens, weight 1) and decode
    (one token, a cache of 1024, weight 200).
    """
    from unitp.frontends import load
    from unitp.planner.explain import describe
    from unitp.plans import save

    loaded = load(model)
    wanted = str(settings({"mesh": mesh})["mesh"].value)
    plan = get_plan(loaded, wanted, None, allow_unused, [parse_phase(p) for p in phases] or None)
    if output:
        save(plan, output)
    if as_json:
        print_json(
            {
                **msgspec.to_builtins(plan.certificate),
                "mesh": str(plan.mesh),
                "graph": plan.graph,
                "output": output or "",
            }
        )
        return
    print_description(plan, describe(plan, loaded.graph))
    if output:
        console().print(f"written to {output}", highlight=False)
