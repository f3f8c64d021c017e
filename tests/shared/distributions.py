"""The distributions of this checkout: `distributions.py FOLDER`, which is `make dist`, builds all of them there.

Each is built as an sdist, and as a wheel from that sdist, by the hatchling that is installed: nothing is downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Distribution(NamedTuple):
    """What a folder of this checkout is installed as; `project` is that table of its pyproject.toml."""

    folder: Path
    project: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    def built(self, folder: Path) -> tuple[Path, Path]:
        """Where its sdist and its wheel lie in a folder into which it was built."""
        stem = folder / f"{self.package}-{self.project['version']}"
        return Path(f"{stem}.tar.gz"), Path(f"{stem}-py3-none-any.whl")

    def build(self, folder: Path) -> tuple[Path, Path]:
        """Its sdist, and the wheel made of it, in this folder. Raises CalledProcessError where that fails."""
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            done.check_returncode()
        return self.built(folder)


def _read(folder: Path) -> Distribution:
    return Distribution(folder, tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"])


UNITP = _read(ROOT)
_FOUND = {folder.parent.name: _read(folder.parent) for folder in sorted(ROOT.glob("backends/*/pyproject.toml"))}
TRANSPORTS = {"mpi": _FOUND["mpi"]}
BACKENDS = {name: one for name, one in _FOUND.items() if name not in TRANSPORTS}
"""By the name of the backend."""
DISTRIBUTIONS = (UNITP, *TRANSPORTS.values(), *BACKENDS.values())


def environment(backend: str) -> str:
    """The requirement that installs a backend with its framework and all else: `unitp-torch[framework]`."""
    extras = ",".join(sorted(BACKENDS[backend].project["optional-dependencies"]))
    return f"{BACKENDS[backend].name}[{extras}]"


if __name__ == "__main__":
    for distribution in DISTRIBUTIONS:
        for made in distribution.build(Path(sys.argv[1])):
            print(made)
