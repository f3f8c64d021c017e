"""`unitp doctor`: what is installed, what is missing, the exact command that mends it; 2 ranks of each backend sum a number."""

from __future__ import annotations

import platform
import sys
import time
from typing import Any

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import console, print_json, progress, table
from unitp.config import Setting, python_of, settings
from unitp.errors import UnitpError
from unitp.frontends.builder import Builder
from unitp.frontends.registry import KNOWN
from unitp.mesh import Mesh
from unitp.plugins.discover import installed, missing, registry
from unitp.plugins.spec import BackendSpec


@click.command("doctor")
@click.option("--no-start", is_flag=True, help="Look only; start no ranks.")
@json_option
def command(no_start: bool, as_json: bool) -> None:
    """What is installed, what is missing, the exact command that mends it; 2 ranks of each backend sum a number."""
    found, configured = registry(), settings()
    rows = []
    with progress("looking") as say:
        for spec in found.backends.values():
            say(f"{spec.name}: looking" if no_start else f"{spec.name}: starting 2 ranks")
            rows.append(_examine(spec, configured, no_start))
    rows += [
        {"backend": b.name, "state": "broken", "mend": f"pip install {b.distribution}", "why": b.reason}
        for b in found.broken
    ]
    models = [
        {"model": k.name, "state": "ok" if k.intact() else "missing or changed", "mend": k.install}
        for k in KNOWN.values()
    ]
    healthy = all(row["state"] == "ok" for row in rows)
    if as_json:
        print_json(
            {
                "python": sys.executable,
                "version": platform.python_version(),
                "backends": rows,
                "models": models,
                "ok": healthy,
            }
        )
    else:
        _print(rows, models)
    sys.exit(0 if healthy else 1)


def _examine(spec: BackendSpec, configured: dict[str, Setting], no_start: bool) -> dict[str, Any]:
    python = python_of(spec.name, configured)
    versions = {r.distribution: installed(r.distribution) for r in spec.requires}
    row: dict[str, Any] = {
        "backend": spec.name,
        "runtime": spec.runtime,
        "versions": versions,
        "state": "ok",
        "mend": "",
        "why": "",
    }
    lacking = [] if python else [r.distribution for r in missing(spec, 2)]
    if lacking:
        return {**row, "state": "missing", "mend": spec.install, "why": f"{', '.join(lacking)} not installed"}
    if no_start:
        return row
    begun = time.perf_counter()
    try:
        sums = _sum_over_two(spec, python)
    except UnitpError as error:
        return {**row, "state": "fails", "mend": error.hint or spec.install, "why": error.message}
    if sums != [3.0, 3.0]:
        return {**row, "state": "fails", "mend": spec.install, "why": f"two ranks summed 1.5 to {sums}"}
    return {**row, "why": f"2 ranks summed a number, {time.perf_counter() - begun:.1f} s"}


def _sum_over_two(spec: BackendSpec, python: str | None) -> list[float]:
    from unitp.planner import plan
    from unitp.runtime.launch import launch

    b = Builder("doctor")
    graph = b.graph(b.Neg(b.input("x", "float32", (2,))))
    with launch(graph, plan(graph, Mesh(tp=2)), spec, python=python) as session:
        return session.probe(1.5)


def _print(rows: list[dict[str, Any]], models: list[dict[str, str]]) -> None:
    shown = table("backend", "state", "runtime", "versions", "")
    for row in rows:
        versions = ", ".join(f"{d} {v or 'missing'}" for d, v in row.get("versions", {}).items())
        color = "green" if row["state"] == "ok" else "red"
        shown.add_row(
            row["backend"], f"[{color}]{row['state']}[/{color}]", row.get("runtime", ""), versions, row["why"]
        )
    console().print(shown)
    for row in rows:
        if row["mend"]:
            console().print(f"{row['backend']}: run {row['mend']}", highlight=False, soft_wrap=True)
    for model in models:
        mend = "" if model["state"] == "ok" else f": run {model['mend']}"
        console().print(f"model {model['model']} {model['state']}{mend}", highlight=False, soft_wrap=True)
