"""`unitp config show`: every setting, and with --origin its origin."""

from __future__ import annotations

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import print_json, print_table, table
from unitp.config import ABOUT, settings


@click.group("config", no_args_is_help=True)
def command() -> None:
    """Show every setting and where it comes from: a flag, then UNITP_*, then unitp.toml, then your own file, then the default."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@json_option
def show(origin: bool, as_json: bool) -> None:
    """Show every setting."""
    found = settings()
    if as_json:
        print_json({name: {"value": s.value, "origin": s.origin} for name, s in found.items()})
        return
    rows = table("setting", "value", *(["origin"] if origin else []), "what it is")
    for name, setting in found.items():
        more = "an environment variable" if ".env." in name else "the interpreter"
        about = ABOUT.get(name, f"{more} of this backend's ranks")
        rows.add(name, str(setting.value), *([setting.origin] if origin else []), about)
    print_table(rows)
