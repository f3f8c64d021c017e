"""`unitp run`: run a graph on arrays from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click

from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options
from unitp.cli.output import console, print_json, progress
from unitp.errors import InputError


@click.command("run")
@options(model_argument, backend_option, running_options)
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An array for a graph input.")
@click.option("--inputs", "archive", type=click.Path(), help="An .npz with arrays by input name.")
@click.option("-o", "--output", type=click.Path(), required=True, help="The .npz that gets arrays by output name.")
@json_option
def command(
    model: str,
    backend: str | None,
    inputs: tuple[str, ...],
    archive: str | None,
    output: str,
    as_json: bool,
    **running: Any,
) -> None:
    """Run a graph on arrays from files. A language model needs input_ids only."""
    request = Request(model, backend=backend, **running)
    arrays = read_inputs(inputs, archive)
    with progress(f"starting {request.plan.mesh.size} ranks of {request.value('backend')}"):
        session = request.launch()
    with session:
        outputs = session.run(arrays)
    np.savez(output, **outputs)
    shapes = {name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in outputs.items()}
    if as_json:
        print_json({"output": output, "arrays": shapes})
    else:
        for name, about in shapes.items():
            console().print(f"{name}: {about['dtype']}{about['shape']}", highlight=False)


def read_inputs(inputs: tuple[str, ...], archive: str | None) -> dict[str, Any]:
    """Arrays by name from `NAME=FILE` words and an archive. Nothing in them is unpickled."""
    found: dict[str, Any] = {}
    if archive:
        found |= dict(_load(archive).items())
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals:
            raise InputError(f'cannot read --input "{text}"', hint="Write it as in input_ids=ids.npy.")
        found[name] = _load(path)
    return found


def _load(path: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read arrays from {Path(path)}: {error}") from None
