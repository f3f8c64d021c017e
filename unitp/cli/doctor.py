"""`unitp doctor`: what is installed, what is missing, and the command that mends it. 2 ranks of each backend sum a number."""

from __future__ import annotations

import platform
import sys
import time
from shlex import quote
from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.options import Settings, backends_option, json_option, launch_options, options
from unitp.cli.output import over, print_json, print_table, progress, say, table
from unitp.config import python_of
from unitp.errors import BackendError, UnitpError

if TYPE_CHECKING:
    from unitp.plugins.spec import BackendSpec

RANKS = 2


@click.command("doctor")
@options(backends_option, launch_options)
@click.option("--no-start", is_flag=True, help="Look only; start no ranks.")
@json_option
def command(backends: tuple[str, ...], no_start: bool, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Show what is installed, what is missing, and the exact command that mends it; 2 ranks of each backend sum a number.

    Exit code 1 if a backend or a model is missing or faulty.
    """
    from unitp.cli.plugins import broken, every_hook
    from unitp.frontends.known_models import KNOWN
    from unitp.plugins.discover import backend as find
    from unitp.plugins.discover import registry

    settings = Settings(verbose=verbose, **flags)
    found = registry()
    rows = []
    with progress() as tell:
        for spec in [find(name) for name in dict.fromkeys(backends)] or found.backends.values():
            tell(f"{spec.name}: {'looking' if no_start else f'starting {RANKS} ranks'}")
            rows.append(_examine(spec, settings, no_start))
    for b in broken(every_hook()) if not backends else ():
        rows.append({"backend": b.name, "state": "broken", "mend": b.mend, "why": b.reason})
    models = [
        _examine_model(known.name, known.path() is not None, known.intact(), known.install) for known in KNOWN.values()
    ]
    isolation = _examine_isolation(settings)
    healthy = all(row["state"] == "ok" for row in (*rows, *models))
    if as_json:
        python = {"python": sys.executable, "version": platform.python_version()}
        print_json({**python, "backends": rows, "models": models, "isolation": isolation, "ok": healthy})
    else:
        _print(rows, models)
        say(f"isolation {'on' if isolation['on'] else 'off'}: {isolation['why']}.")
    sys.exit(0 if healthy else 1)


def _examine(spec: BackendSpec, settings: Settings, no_start: bool) -> dict[str, Any]:
    """Examine one backend: its versions in the interpreter of its ranks, and whether 2 ranks can sum a number."""
    from unitp.plugins.discover import lacking, versions
    from unitp.plugins.transports import described
    from unitp.ranks.interpreters import versions_in
    from unitp.session.launch import carrier_of

    row: dict[str, Any] = {"backend": spec.name, "runtime": spec.runtime, "state": "ok", "mend": "", "why": ""}
    row |= {"notice": spec.notice, "transport": ""}
    python = python_of(spec.name, settings.all)
    row["python"] = python or sys.executable
    found = versions(spec)
    if python:
        try:
            found = versions_in(python, spec)
        except BackendError as error:
            return {**row, "versions": {}, "state": "fails", "mend": _command(error), "why": error.message}
    row["versions"] = found
    if wanted := lacking(spec, found, RANKS):
        command = f"{quote(python)} -m {spec.install}" if python else spec.install
        return {**row, "state": "missing", "mend": command, "why": f"needs {', '.join(wanted)}"}
    try:
        carrier = carrier_of(spec, RANKS, settings.launch_options(spec.name)["transport"], "float32", row["python"])
    except BackendError as error:
        return {**row, "state": "missing", "mend": _command(error), "why": error.message}
    row |= {"transport": carrier.name, "runtime": carrier.runtime}
    if carrier.plugin and not python:
        row["versions"] = {**found, **versions(described(carrier.name, carrier.plugin))}
    if no_start:
        return row
    begun = time.perf_counter()
    try:
        sums = _sum(spec, settings)
    except UnitpError as error:
        return {**row, "state": "fails", "mend": _command(error) or spec.install, "why": error.message}
    if sums != [RANKS * 1.5] * RANKS:
        return {**row, "state": "fails", "mend": spec.install, "why": f"{RANKS} ranks summed 1.5 to {sums}"}
    return {**row, "why": f"{RANKS} ranks summed a number, {time.perf_counter() - begun:.1f} s"}


def _command(error: UnitpError) -> str:
    """The command that mends it."""
    return error.hint.removeprefix("Run: ")


def _sum(spec: BackendSpec, settings: Settings) -> list[float]:
    """The sums of 1.5 over 2 ranks that each of them computes."""
    from unitp.frontends.builder import Builder
    from unitp.mesh import Mesh
    from unitp.planner import Request, plan
    from unitp.session.launch import launch

    b = Builder("doctor")
    graph = b.graph(b.Neg(b.input("x", "float32", (RANKS,))))
    with launch(graph, plan(Request(graph, Mesh(tp=RANKS))), spec, **settings.launch_options(spec.name)) as session:
        return session.probe(1.5)


def _examine_isolation(settings: Settings) -> dict[str, Any]:
    """Examine whether nothing outside a session can reach its ranks, and if not, what can."""
    from unitp.plugins.discover import backends
    from unitp.ranks.isolation import isolate

    found = isolate("off" if settings.value("isolation") == "off" else "auto", sys.executable)
    found.close()
    if found.on:
        return {"on": True, "why": "the ranks of a session reach each other, and nothing else reaches them"}
    opened = "; ".join(f"{spec.name}: {spec.exposed}" for spec in backends().values() if spec.exposed)
    return {"on": False, "why": f"{found.why}. {opened}"}


def _examine_model(name: str, there: bool, intact: bool, install: str) -> dict[str, str]:
    state = "ok" if intact else "changed" if there else "missing"
    mend = "" if intact else f"{install} --force-reinstall" if there else install
    return {"model": name, "state": state, "mend": mend}


def _print(rows: list[dict[str, Any]], models: list[dict[str, str]]) -> None:
    shown = table("backend", "state", "transport", "versions", "")
    for row in rows:
        versions = ", ".join(f"{d} {v or 'missing'}" for d, v in row.get("versions", {}).items())
        color = "green" if row["state"] == "ok" else "red"
        shown.add(
            row["backend"],
            (row["state"], color),
            over(row.get("transport", ""), row.get("runtime", "")),
            versions,
            row["why"],
        )
    print_table(shown)
    for row in rows:
        if row["mend"]:
            say(f"{row['backend']}: run {row['mend']}")
        if row.get("notice"):
            say(f"{row['backend']}: {row['notice']}.")
    for model in models:
        mend = f": run {model['mend']}" if model["mend"] else ""
        say(f"model {model['model']} {model['state']}{mend}")
