"""The hook by which machine profiles come, built-in ones and those of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unitp.plugins.hooks import Hook, hookimpl, hookspec

PROFILES = Path(__file__).parent / "profiles"


@hookspec
def unitp_machines() -> Mapping[str, Path]:
    """The machine profiles that this plug-in adds: machine files (TOML), by the name that `--machine` takes."""
    return {}


class BuiltIn:
    """The profiles in `unitp/cost/profiles`."""

    @hookimpl
    def unitp_machines(self) -> Mapping[str, Path]:
        """The profiles that come with unitp."""
        return {path.stem: path for path in PROFILES.glob("*.toml")}


MACHINES: Hook[Path] = Hook("machine profile", unitp_machines, Path, [BuiltIn()])
