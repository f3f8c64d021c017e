"""`unitp models`: models known by name, and whether their package is installed."""

from __future__ import annotations

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import print_json, print_table, say, table


@click.command("models")
@json_option
def command(as_json: bool) -> None:
    """Models known by name, and whether their package is installed."""
    from unitp.frontends.registry import KNOWN

    found = [(known, known.path()) for known in KNOWN.values()]
    if as_json:
        rows = [
            {
                "name": k.name,
                "about": k.about,
                "package": k.package,
                "version": k.version,
                "installed": path is not None,
                "path": str(path or ""),
                "install": k.install,
            }
            for k, path in found
        ]
        print_json({"models": rows})
        return
    shown = table("name", "installed", "what it is")
    for known, path in found:
        shown.add_row(known.name, "yes" if path else f"no: run {known.install}", known.about)
    print_table(shown)
    say("Besides these, any .gguf file or Hugging Face directory of a Llama-type model.")
