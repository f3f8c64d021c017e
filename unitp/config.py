"""Settings: a flag wins over the environment (`UNITP_BACKEND`), that over `unitp.toml`, that over the default.

    backend = "torch"
    mesh = "tp=2"

    [backends.mxnet]
    python = "/opt/mxnet/bin/python"        # the interpreter of its ranks

`UNITP_CONFIG` names another file than `unitp.toml` in the current folder.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import InputError, did_you_mean

DEFAULTS: dict[str, Any] = {
    "backend": "numpy",
    "mesh": "tp=1",
    "dtype": "float32",
    "context": 0,
    "threads": 1,
    "port": 0,
    "stall_s": 120.0,
}
ABOUT = {
    "backend": "the backend that runs programs",
    "mesh": "the axes over which a model is split, as in dp=1,tp=2",
    "dtype": "float32, or float64 to check",
    "context": "tokens that the caches hold per sequence; 0: the model's own, at most 2048",
    "threads": "threads of each rank",
    "port": "the first port that ranks use; 0: free ones are picked",
    "stall_s": "seconds without progress after which a rank counts as stuck",
}


class Setting(msgspec.Struct, frozen=True):
    """A value and where it comes from: flag, an environment variable, a file, or default."""

    name: str
    value: Any
    origin: str


def settings(
    flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Setting]:
    """All settings. Flags that are None were not given. Raises InputError for an unknown or ill-typed one."""
    env = os.environ if environment is None else environment
    path = Path(env.get("UNITP_CONFIG", "unitp.toml"))
    file = _read(path)
    found = {}
    for name, default in DEFAULTS.items():
        variable = f"UNITP_{name.upper()}"
        if flags and flags.get(name) is not None:
            found[name] = Setting(name, flags[name], "flag")
        elif variable in env:
            found[name] = Setting(name, _typed(name, env[variable], default, variable), variable)
        elif name in file:
            found[name] = Setting(name, _typed(name, file[name], default, str(path)), str(path))
        else:
            found[name] = Setting(name, default, "default")
    for backend, table in sorted(file.get("backends", {}).items()):
        found[f"backends.{backend}.python"] = Setting(f"backends.{backend}.python", table["python"], str(path))
    return found


def python_of(backend: str, found: Mapping[str, Setting]) -> str | None:
    """The interpreter that `unitp.toml` names for a backend's ranks, or None for this one."""
    setting = found.get(f"backends.{backend}.python")
    return str(setting.value) if setting else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        file = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    for name in file:
        if name not in DEFAULTS and name != "backends":
            raise InputError(
                f'{path} has an unknown setting "{name}"', hint=did_you_mean(name, [*DEFAULTS, "backends"])
            )
    tables = file.get("backends", {})
    if not isinstance(tables, dict) or any(set(t) != {"python"} for t in tables.values() if isinstance(t, dict)):
        raise InputError(f"{path}: a table [backends.NAME] has one setting, python")
    if any(not isinstance(t, dict) for t in tables.values()):
        raise InputError(f'{path}: write [backends.NAME] and python = "..." below it')
    return file


def _typed(name: str, value: Any, default: Any, where: str) -> Any:
    try:
        return type(default)(value)
    except (TypeError, ValueError):
        wanted = {"int": "a whole number", "float": "a number"}.get(type(default).__name__, "text")
        raise InputError(f'{where}: {name} is "{value}", wanted is {wanted}') from None
