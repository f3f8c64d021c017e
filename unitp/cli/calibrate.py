"""`unitp calibrate`: measure this host with a backend, and write a machine file that plans and predictions are priced with."""

from __future__ import annotations

import msgspec
import rich_click as click

from unitp.cli.options import Settings, backend_option, json_option, launch_options, options, writable
from unitp.cli.output import print_json, progress_bar, say
from unitp.host import writing


@click.command("calibrate")
@options(backend_option)
@click.option(
    "--ranks",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Measure one rank alone, and so many at once with the collectives between them.",
)
@click.option("--quick", is_flag=True, help="Fewer shapes and rounds, for a first look.")
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where the machine is written.")
@options(launch_options, json_option)
def command(
    backend: str | None,
    ranks: int,
    quick: bool,
    output: str,
    as_json: bool,
    threads: int | None,
    port: int | None,
    isolation: str | None,
    transport: str | None,
    stall_s: float | None,
    verbose: bool,
) -> None:
    """Measure this host with a backend: operators by shape, memory, collectives between real compute, the cost of a call.

    It takes a minute or two, and other work on the machine disturbs it. Give the file to --machine. Collectives are those of the
    transport (--transport), which the file names; make one for each that you use.
    """
    settings = Settings(
        verbose=verbose,
        backend=backend,
        threads=threads,
        port=port,
        isolation=isolation,
        transport=transport,
        stall_s=stall_s,
    )
    name = str(settings.value("backend"))
    path = writable(output)
    from unitp.calibration import calibrate
    from unitp.plugins.discover import backend as find

    find(name)
    with progress_bar(f"calibrating {name}") as tell:
        found = calibrate(name, ranks, quick=quick, tell=tell, **settings.launch_options(name))
    with writing(path):
        path.write_text(found.text, "utf-8")
    if as_json:
        print_json({"output": output, "backend": name, "ranks": ranks, **_about(found.machine)})
        return
    from unitp.calibration.summary import summary

    for line in summary(found.machine):
        say(line)
    say(f"written to {output}")


def _about(machine: object) -> dict[str, object]:
    return {"machine": msgspec.to_builtins(machine, str_keys=True), "hash": getattr(machine, "hash", "")}
