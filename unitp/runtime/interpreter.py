"""How an interpreter is asked to run a worker: `python -P .../unitp/entry.py ...`, with what it imports from where."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from os import defpath, environ, fspath
from pathlib import Path
from shutil import which

import unitp.entry
from unitp.cpus import allowed
from unitp.runtime.environment import without_current_folder

ENTRY = fspath(Path(unitp.entry.__file__).absolute())


def command(python: str, *arguments: str, engine: str = "") -> list[str]:
    """What starts a worker of `unitp.worker` with these arguments in any current folder, on the CPUs that are allowed.

    Every interpreter uses the driver's `unitp`; the driver's own interpreter, the driver's package of `engine` as well.
    """
    package = package_of(engine) if engine and python == sys.executable else ""
    cpus = ",".join(map(str, sorted(allowed())))
    own = ["--cpus", cpus, *(["--package", package] if package else [])]
    return [full_path(python), "-P", ENTRY, *own, *arguments]


def full_path(program: str) -> str:
    """The full name of a program, links kept: a link decides which virtual environment an interpreter belongs to. A name
    without a folder is looked for on PATH, and not in the current folder.
    """
    folders = without_current_folder(environ.get("PATH", defpath))
    return fspath(Path(which(program, path=folders) or program).absolute())


def package_of(engine: str) -> str:
    """NAME=FOLDER: the package of `engine` (`module:function`), and the folder where this process finds it, if it does."""
    name = engine.partition(":")[0].partition(".")[0]
    found = find_spec(name)
    places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin]
    return f"{name}={Path(places[0]).absolute().parent}" if places and places[0] else ""
