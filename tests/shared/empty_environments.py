"""Each backend in an environment that has nothing else: `empty_environments.py FOLDER [--backends numpy,torch]`, which is
`make dist-check`. FOLDER holds what `make dist` built.

An environment lies outside the checkout. It gets the wheels of unitp, unitp-mpi, unitp-numpy and the backend from FOLDER, everything else
from the registry, in the versions of constraints.txt. What is there then must be what the backend's bill lists. In an empty folder,
with none of the caller's variables, every module of unitp and of the backend must be importable, doctor must be content, and a
plan that is made there must give the same text with all backends. Then these are installed from their sdists, and doctor is
asked again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bill import dependencies
from distributions import BACKENDS, ROOT, TRANSPORTS, UNITP, environment
from packaging.utils import canonicalize_name

MODEL, MODELS = "smollm2-135m", ROOT / "requirements-models.txt"
PROMPT = "The capital of France is"
IMPORT_ALL = """
import importlib, pkgutil, sys
for package in map(importlib.import_module, sys.argv[1:]):
    assert "site-packages" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


class Environment:
    """An environment of a backend, and an empty folder from which it is used."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self.folder = backend, folder
        self.bin, self.elsewhere = folder / "env" / "bin", folder / "elsewhere"
        self.elsewhere.mkdir()
        _done([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], os.environ)

    def install(self, *arguments: str) -> None:
        """By the pip of this interpreter. The versions are bound in the environments of builds, too."""
        bound = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
        self._pip("install", "--quiet", *arguments, environ=bound)

    def installed(self) -> dict[str, str]:
        """Every distribution in it, with its version."""
        listed = json.loads(self._pip("list", "--format", "json"))
        return {canonicalize_name(one["name"]): one["version"] for one in listed}

    def check(self) -> None:
        """Raise CalledProcessError where what is installed does not fit together."""
        self._pip("check")

    def _pip(self, *arguments: str, environ: Any = None) -> str:
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        return _done([*pip, *arguments], environ or os.environ)

    def run(self, *command: str) -> str:
        """What a command of the environment prints, elsewhere and with variables of its own."""
        variables = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.elsewhere), "LANG": "C.UTF-8"}
        return _done([str(self.bin / command[0]), *command[1:]], variables, self.elsewhere)

    def doctor(self) -> None:
        """Raise CalledProcessError where the doctor is not content; AssertionError where it looked elsewhere."""
        found = json.loads(self.run("unitp", "doctor", "--backend", self.backend, "--json"))
        assert found["python"] == str(self.bin / "python"), found["python"]
        assert [row["state"] for row in found["backends"]] == ["ok"]

    def text(self) -> str:
        """What the model says, by a plan that is made here."""
        self.run("unitp", "plan", MODEL, "--mesh", "tp=2", "-o", "plan.json")
        given = f"--plan plan.json --backend {self.backend} --max-new-tokens 4 --json"
        return str(json.loads(self.run("unitp", "generate", MODEL, *given.split(), "--prompt", PROMPT))["text"])


def _done(command: list[str], environ: Any, folder: Path | None = None) -> str:
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    return done.stdout


def tried(backend: str, dist: Path) -> str:
    """The text that a backend says in an environment of its own. Prints how long each step took, and how large it is."""
    took: list[str] = []
    begun = time.perf_counter()

    def passed(what: str) -> None:
        nonlocal begun
        took.append(f"{what} {time.perf_counter() - begun:.0f} s")
        begun = time.perf_counter()

    parts = {one.name: one for one in (UNITP, *TRANSPORTS.values(), BACKENDS["numpy"], BACKENDS[backend])}
    sdists, wheels = zip(*(one.built(dist) for one in parts.values()), strict=True)
    with tempfile.TemporaryDirectory(prefix="empty-environment-") as folder:
        here = Environment(backend, Path(folder))
        # without its extra first: pips look for a local package in the registry otherwise
        here.install(*map(str, wheels), f"{wheels[-1]}[{environment(backend).partition('[')[2]}")
        here.check()
        listed = {name: version(name) for name in dependencies(environment(backend))}
        assert (found := here.installed()) == listed, f"installed and listed differ: {found.items() ^ listed.items()}"
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
        here.install("--no-deps", "--require-hashes", "-r", str(MODELS))
        passed("installed in")
        here.run("python", "-c", IMPORT_ALL, UNITP.package, BACKENDS[backend].package)
        passed("imported in")
        here.doctor()
        passed("doctor content in")
        text = here.text()
        passed("planned and generated in")
        here.install("--force-reinstall", "--no-deps", *map(str, sdists))
        here.doctor()
        passed("the same from sdists in")
    print(f"{backend}: {len(listed)} distributions, {size / 1e6:.0f} MB; {', '.join(took)}: {text!r}", flush=True)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    given = parser.parse_args()
    texts = {backend: tried(backend, given.folder.absolute()) for backend in given.backends.split(",")}
    if len(set(texts.values())) > 1:
        print(f"they say different things: {texts}", file=sys.stderr)
        return 1
    print(f"{len(texts)} environments are as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
