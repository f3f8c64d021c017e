"""`unitp run`: run a graph on arrays from files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import rich_click as click

from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options, writable
from unitp.cli.output import print_json, progress, say
from unitp.errors import InputError
from unitp.host import writing
from unitp.texts import as_unicode


@click.command("run")
@options(model_argument, backend_option)
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An array for a graph input.")
@click.option("--inputs", "archive", type=click.Path(), metavar="FILE.npz", help="Arrays by input name.")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    metavar="FILE.npz",
    help="Where arrays go, by output name.",
)
@options(running_options, json_option)
def command(
    model: str,
    backend: str | None,
    inputs: tuple[str, ...],
    archive: str | None,
    output: str,
    as_json: bool,
    **running: Any,
) -> None:
    """Run a graph on arrays from files. A language model needs only input_ids [batch, seq]."""
    path = writable(output)
    arrays = read_inputs(inputs, archive)
    if not arrays:
        raise InputError("no arrays are given", hint="Give --input NAME=FILE.npy or --inputs FILE.npz.")
    request = Request(model, backend=backend, **running)
    request.require_inputs(arrays)
    require_members(request.model.graph.outputs)
    with progress() as tell:
        session = request.launch(tell, len(arrays.get("input_ids", ())))
    with session:
        outputs = session.run(arrays)
    with writing(path), path.open("wb") as file:
        write_archive(file, outputs)
    shapes = {name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in outputs.items()}
    if as_json:
        print_json({"output": output, "arrays": shapes})
    else:
        for name, array in outputs.items():
            say(f"{name}: {array.dtype}{list(array.shape)}")


def require_members(names: Iterable[str]) -> None:
    """Raise InputError for a name that would lead out of the folder in which somebody unpacks an archive with it."""
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if not parts[0] or ".." in parts or ":" in parts[0] or "\0" in name or name != as_unicode(name):
            raise InputError(f'the output "{name}" cannot be the name of a file in an archive', hint="Rename it.")


def write_archive(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name, for `np.load`. (`np.savez` takes names as keywords, of which it uses some itself.)"""
    from numpy.lib import format as npy

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def read_inputs(inputs: tuple[str, ...], archive: str | None) -> dict[str, Any]:
    """Return arrays by name, from `NAME=FILE` words and an archive. Nothing in the files is unpickled.

    Raises InputError for a word without `=`, a name that is given twice, an array where an archive belongs or an archive where
    an array belongs, and a file that cannot be read.
    """
    from unitp.session.array_files import read_arrays

    found: dict[str, Any] = {}
    if archive:
        arrays = read_arrays(archive)
        if not isinstance(arrays, dict):
            raise InputError(f"{archive} is one array, not an archive", hint="Give it with --input NAME=FILE.npy.")
        found |= arrays
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals:
            raise InputError(f'cannot read --input "{text}"', hint="Write it as in input_ids=ids.npy.")
        if name in found:
            raise InputError(f"input {name} is given twice")
        found[name] = read_arrays(path)
        if isinstance(found[name], dict):
            raise InputError(f"{path} is an archive, not one array", hint="Give it with --inputs FILE.npz.")
    return found
