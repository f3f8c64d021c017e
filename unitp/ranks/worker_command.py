"""The command that runs a worker: `python -P .../unitp/entry.py ...`, with the packages that it imports and from where."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from os import defpath, environ, fspath
from pathlib import Path
from shutil import which

from unitp.cpus import allowed
from unitp.ranks.environment import without_current_folder

ENTRY = fspath(Path(__file__).absolute().parents[1] / "entry.py")


def command(python: str, *arguments: str, plugin: str = "", besides: str = "") -> list[str]:
    """The command that starts `unitp.worker` with these arguments in any current folder, on the allowed CPUs.

    Every interpreter uses the driver's `unitp`. The driver's own interpreter also uses the driver's `plugin` (a module),
    and the package of another that it needs `besides`.
    """
    cpus = ",".join(map(str, sorted(allowed())))
    line = [full_path(python), "-P", ENTRY, "--cpus", cpus]
    if plugin and python == sys.executable:
        packages = [package for module in (plugin, besides) if module and (package := package_of(module))]
        line += [*(word for package in packages for word in ("--package", package)), *arguments, "--plugin", plugin]
    else:
        line += arguments
    return line


def full_path(program: str) -> str:
    """The full name of a program, with links kept, because a link decides to which virtual environment an interpreter belongs.

    A name without a folder is looked for on PATH, but not in the current folder.
    """
    folders = without_current_folder(environ.get("PATH", defpath))
    return fspath(Path(which(program, path=folders) or program).absolute())


def package_of(module: str) -> str:
    """NAME=FOLDER: the package of a module and the folder where this process finds it, if it does."""
    name = module.partition(".")[0]
    found = find_spec(name)
    places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin]
    return f"{name}={Path(places[0]).absolute().parent}" if places and places[0] else ""
