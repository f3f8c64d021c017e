"""The hook through which all machine profiles come: the built-in ones and those of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unitp.plugins.hooks import Hook, hookimpl, hookspec

PROFILES = Path(__file__).parent / "profiles"


@hookspec
def unitp_machines() -> Mapping[str, Path]:
    """Return the machine files (TOML) that this plug-in adds, by the name under which `--machine` finds each."""
    return {}


class BuiltIn:
    """The plug-in of the profiles in `unitp/cost/profiles`."""

    @hookimpl
    def unitp_machines(self) -> Mapping[str, Path]:
        """Return the machine files that come with unitp, by name."""
        return {path.stem: path for path in PROFILES.glob("*.toml")}


MACHINES: Hook[Path] = Hook("machine profile", unitp_machines, Path, [BuiltIn()])
