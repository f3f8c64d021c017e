"""The file that the interpreter of a rank runs: `python -P .../unitp/entry.py --role worker ...`.

This interpreter imports the driver's packages from where the driver has them, and no other module beside them. So both
ends of a connection have one version, and a checkout need not be installed. `-P` keeps the current folder, and the folder
of this file, off the import path.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class Only(MetaPathFinder):
    """Finds packages by name, each in its folder, before any other finder."""

    def __init__(self, roots: dict[str, str]) -> None:
        self.roots = roots

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.roots[name]]) if name in self.roots else None


def begin(arguments: list[str]) -> None:
    """Run `unitp.worker` with the arguments that are left.

    `--package NAME=FOLDER` says where a package is, `--cpus 0,1` where this process may run.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--package", action="append", default=[])
    parser.add_argument("--cpus")
    own, others = parser.parse_known_args(arguments)
    if own.cpus:
        os.sched_setaffinity(0, map(int, own.cpus.split(",")))
    roots = dict(package.split("=", 1) for package in own.package)
    sys.meta_path.insert(0, Only({"unitp": str(Path(__file__).parents[1]), **roots}))

    from unitp.worker import main

    main(others)


if __name__ == "__main__":
    begin(sys.argv[1:])
