"""Settings. A flag overrides the environment (`UNITP_BACKEND`), which overrides `unitp.toml` in the current folder, which
overrides the user's own `~/.config/unitp/unitp.toml`, which overrides the default.

    backend = "torch"
    mesh = "tp=2"

    # in the user's own file only
    [backends.mxnet]
    python = "/opt/mxnet/bin/python"        # the interpreter of its ranks; UNITP_BACKENDS_MXNET_PYTHON
    [backends.mxnet.env]
    LD_PRELOAD = "/opt/lib/libjemalloc.so"  # a variable of its ranks, which get no other than unitp lists

`UNITP_CONFIG` names a file to read instead of `unitp.toml`, and XDG_CONFIG_HOME a folder instead of `~/.config`. An empty
variable counts as unset.

A user who enters a folder has not read its files. So a project's file runs nothing and cannot switch isolation off: if it
names an interpreter or a variable of ranks, it is refused, with the lines to copy. A file that `UNITP_CONFIG` names counts
as a project's, because the variable may come from the same checkout (`.env`). Only the user's own file may run programs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import InputError, did_you_mean
from unitp.files import parse_toml, read_text
from unitp.texts import toml_key, toml_text

DEFAULTS: dict[str, Any] = {
    "backend": "numpy",
    "mesh": "tp=1",
    "machine": "",
    "dtype": "float32",
    "weights": "float32",
    "context": 0,
    "threads": 1,
    "port": 0,
    "isolation": "auto",
    "transport": "auto",
    "stall_s": 120.0,
}
ABOUT = {
    "backend": "the backend that runs programs",
    "mesh": "the axes over which a model is split, as in dp=1,tp=2",
    "machine": "the profile or file of the machine that plans are made for; empty: default numbers",
    "dtype": "float32, or float64 to check",
    "weights": "float32, bfloat16 or float16: what weights are stored in",
    "context": "tokens that the caches hold per sequence; 0: the model's own, at most 2048",
    "threads": "threads of each rank",
    "port": "the first port that ranks use; 0: free ones are picked",
    "isolation": "auto, require or off: whether ranks run in a network namespace of their own",
    "transport": "auto, native or the name of another: what carries the ranks' collectives; compare and demo take native by default",
    "stall_s": "seconds without progress after which a rank counts as stuck",
}
RANGES: dict[str, tuple[float, float, str]] = {
    "context": (0, 10**12, "0 (the model's own), or how many tokens, up to 10^12"),
    "threads": (1, 4096, "a number from 1 to 4096"),
    "port": (0, 65535, "0 (free ones), or a number up to 65535"),
    "stall_s": (0.1, 1e9, "a number of seconds from 0.1 to 1e9"),
}
CHOICES = {"isolation": ("auto", "require", "off"), "weights": ("float32", "bfloat16", "float16")}
FILE = "UNITP_CONFIG"
LARGEST = 16 * 2**10
"""Bytes of a settings file."""


class Setting(msgspec.Struct, frozen=True):
    """A value and its origin: flag, an environment variable, a file, or default."""

    name: str
    value: Any
    origin: str


def settings(
    flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Setting]:
    """All settings. A flag that is None was not given. Raises InputError for unknown and ill-typed ones."""
    env = os.environ if environment is None else environment
    _require_known(env)
    files = _files(env)
    found = {}
    for name, default in DEFAULTS.items():
        if flags and flags.get(name) is not None:
            origin, value = "flag", _checked(name, flags[name], f"--{name.replace('_', '-')}")
        elif env.get(variable := variable_of(name)):
            origin, value = variable, _checked(name, _parsed(name, env[variable], variable), variable)
        elif path := next((path for path, file in files.items() if name in file), ""):
            origin, value = path, _checked(name, files[path][name], path)
        else:
            origin, value = "default", default
        found[name] = Setting(name, value, origin)
    return found | {s.name: s for s in (*_interpreters(files, env), *_variables(files))}


def own_file(env: Mapping[str, str]) -> Path | None:
    """The path of the user's own settings file, whether it exists or not.

    It is None without a home, or with a relative one, which would be a different file in every folder.
    """
    home = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # so the specification of XDG wants it
        home = os.path.join(env["HOME"], ".config") if os.path.isabs(env.get("HOME", "")) else ""
    return Path(home, "unitp", "unitp.toml") if home else None


def _files(env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The contents of the settings files by path. The first one overrides the others."""
    project, own = Path(env.get(FILE) or "unitp.toml"), own_file(env)
    files = {}
    if own is None or not _same(project, own):
        files[str(project)] = _read(project, named=bool(env.get(FILE)))
        _require_harmless(files[str(project)], project, own)
    if own is not None:
        files[str(own)] = _read(own, named=False)
        _require_full_paths(files[str(own)], own)
    return files


def _same(a: Path, b: Path) -> bool:
    """Whether both paths are one file, by name or on the disk (links)."""
    try:
        return a.absolute() == b or a.samefile(b)
    except (OSError, ValueError):
        return False


def python_of(backend: str, found: Mapping[str, Setting]) -> str | None:
    """The interpreter that the settings name for a backend's ranks, or None for this one."""
    setting = found.get(f"backends.{backend}.python")
    return str(setting.value) if setting else None


def variables_of(backend: str, found: Mapping[str, Setting]) -> dict[str, str]:
    """The environment variables that the user's own settings file adds for a backend's ranks."""
    start = f"backends.{backend}.env."
    return {name.removeprefix(start): str(found[name].value) for name in found if name.startswith(start)}


def variable_of(name: str) -> str:
    """The name of the environment variable of a setting."""
    return f"UNITP_{name.replace('.', '_').upper()}"


def _interpreters(files: Mapping[str, dict[str, Any]], env: Mapping[str, str]) -> list[Setting]:
    found = {
        backend: (table["python"], path)
        for path, file in reversed(list(files.items()))
        for backend, table in file.get("backends", {}).items()
        if "python" in table
    }
    for variable, value in env.items():
        if value and (match := re.fullmatch(r"UNITP_BACKENDS_(\w+)_PYTHON", variable)):
            found[match[1].lower()] = (value, variable)
    names = {backend: f"backends.{backend}.python" for backend in sorted(found)}
    return [Setting(name, found[backend][0], found[backend][1]) for backend, name in names.items()]


def _variables(files: Mapping[str, dict[str, Any]]) -> list[Setting]:
    return [
        Setting(f"backends.{backend}.env.{name}", value, path)
        for path, file in files.items()
        for backend, table in sorted(file.get("backends", {}).items())
        for name, value in table.get("env", {}).items()
    ]


def _require_known(env: Mapping[str, str]) -> None:
    """Raise InputError for a variable that is nearly, but not exactly, that of a setting."""
    known = {variable_of(name): name for name in DEFAULTS}
    for variable in env:
        if variable.startswith("UNITP_") and variable not in (*known, FILE):
            near = get_close_matches(variable, known, n=1, cutoff=0.88)
            if near:
                raise InputError(f"{variable} is not a setting", hint=f'Did you mean "{near[0]}"?')


def _read(path: Path, *, named: bool) -> dict[str, Any]:
    """The tables of a file, empty if it does not exist, unless it was `named`."""
    if not named and not _there(path):
        return {}
    text = read_text(path, most=LARGEST, what=f"the file that {FILE} names, " if named else "")
    file = parse_toml(text, path)
    for name in file:
        if name not in DEFAULTS and name != "backends":
            raise InputError(
                f'{path} has an unknown setting "{name}"', hint=did_you_mean(name, [*DEFAULTS, "backends"])
            )
    tables = file.get("backends", {})
    if not isinstance(tables, dict) or any(not isinstance(t, dict) for t in tables.values()):
        raise InputError(f'{path}: write [backends.NAME] and python = "..." below it')
    for backend, table in tables.items():
        python = table.get("python", "python")
        if (
            not table
            or not set(table) <= {"python", "env"}
            or not isinstance(python, str)
            or not python
            or "\0" in python
        ):
            raise InputError(
                f'{path}: a table [backends.{backend}] has python = "...", and a table env, or one of them'
            )
        if "env" in table:
            _require_variables(table["env"], f"{path}: [backends.{backend}.env]")
    return file


def _there(path: Path) -> bool:
    """Whether a file exists. False if its folder may not be entered (another user's home)."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
    return True


def _require_harmless(file: Mapping[str, Any], path: Path, own: Path | None) -> None:
    """Raise InputError if a project's file decides which programs run or who can reach them.

    The hint has the lines for the user's own file.
    """
    if file.get("isolation") == "off":
        hint = (
            f'If you want that, give --isolation off, or write isolation = "off" to {own or "your own settings file"}.'
        )
        raise InputError(f"{path}: a project's file cannot switch isolation off", hint=hint)
    if not (tables := file.get("backends")):
        return
    where = str(own) if own else "~/.config/unitp/unitp.toml (HOME is not set)"
    raise InputError(
        f"{path}: {' and '.join(f'[{_key(b)}]' for b in tables)} may stand in your own settings file only: it decides which program runs",
        hint="\n".join(
            [
                f"If you trust it, move these lines to {where}:",
                "",
                *(line for b in tables for line in _lines(b, tables[b])),
            ]
        ),
    )


def _lines(backend: str, table: Mapping[str, Any]) -> Iterator[str]:
    """The table of a backend as TOML."""
    if "python" in table:
        yield f"[{_key(backend)}]"
        yield f"python = {toml_text(table['python'])}"
    if "env" in table:
        yield f"[{_key(backend)}.env]"
        yield from (f"{name} = {toml_text(value)}" for name, value in table["env"].items())


def _key(backend: str) -> str:
    return f"backends.{toml_key(backend)}"


def _require_full_paths(file: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for an interpreter that would be a different program in every folder."""
    for backend, table in file.get("backends", {}).items():
        python = table.get("python", "")
        if os.sep in python and not os.path.isabs(python):
            raise InputError(
                f'{path}: [{_key(backend)}] python is "{python}", which depends on the current folder',
                hint="Write its full path, or a name that is found on PATH.",
            )


def _require_variables(table: Any, where: str) -> None:
    """Raise InputError for what cannot be the environment variables of a process."""
    if not isinstance(table, dict):
        raise InputError(f'{where}: write NAME = "value" below it')
    for name, value in table.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f'{where}: "{name}" is not the name of a variable')
        if not isinstance(value, str) or "\0" in value:
            raise InputError(f'{where}: {name} is "{_words(value)}" but must be text in quotes')
        if name.startswith("UNITP_"):
            raise InputError(f"{where}: {name} is unitp's own")


def _parsed(name: str, text: str, where: str) -> Any:
    """The value of an environment variable's text."""
    kind = type(DEFAULTS[name])
    try:
        return kind(text)
    except ValueError:
        raise _ill_typed(name, text, where) from None


def _checked(name: str, value: Any, where: str) -> Any:
    """The value, if it has the setting's own type and is in its range."""
    kind = type(DEFAULTS[name])
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 10**300 else float("inf")
    if type(value) is not kind or (isinstance(value, str) and "\0" in value):
        raise _ill_typed(name, value, where)
    if value not in CHOICES.get(name, (value,)):
        raise InputError(f'{where}: {name} is "{value}"', hint=did_you_mean(value, CHOICES[name]))
    least, most, wanted = RANGES.get(name, (0, 0, ""))
    if wanted and not least <= value <= most:
        raise InputError(f"{where}: {name} is {_words(value)} but must be {wanted}")
    return value


def _ill_typed(name: str, value: Any, where: str) -> InputError:
    wanted = {"int": "a whole number", "float": "a number"}.get(type(DEFAULTS[name]).__name__, "text in quotes")
    return InputError(f'{where}: {name} is "{_words(value)}" but must be {wanted}')


def _words(value: Any) -> str:
    """A value for a message. It is short, and does not fail for values that cannot be written out."""
    if isinstance(value, dict | list):
        return f"a {'table' if isinstance(value, dict) else 'list'}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
