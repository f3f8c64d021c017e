"""How an interpreter is started as a worker: with the driver's packages, and with nothing that lies around."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unitp.ranks.worker_command import command, full_path, package_of
from unitp.testing.surroundings import Surroundings


def run(line: list[str], folder: Path) -> str:
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    return Surroundings(tmp_path)


def test_the_surroundings_of_these_tests_are_executed_where_nobody_minds(surroundings: Surroundings) -> None:
    subprocess.run([sys.executable, "-m", "random"], cwd=surroundings.folder, capture_output=True, check=False)
    assert surroundings.executed


def test_a_worker_imports_nothing_from_the_current_folder(surroundings: Surroundings) -> None:
    answer = json.loads(run(command(sys.executable, "describe"), surroundings.folder))
    assert {backend["name"] for backend in answer["backends"]} >= {"numpy", "torch", "tensorflow", "mxnet"}
    assert surroundings.executed == []


def test_a_checkout_that_is_not_installed_is_imported_without_its_neighbours(
    tmp_path: Path, surroundings: Surroundings
) -> None:
    """The driver's folder wins over an installed one; modules beside it are not found."""
    checkout = tmp_path / "checkout"
    for name in ("unitp", "engines"):
        (checkout / name).mkdir(parents=True)
        (checkout / name / "__init__.py").touch()
    entry = checkout / "unitp" / "entry.py"
    entry.write_text(Path(command(sys.executable)[2]).read_text())
    (checkout / "beside.py").touch()
    (checkout / "engines" / "one.py").touch()
    (checkout / "unitp" / "worker.py").write_text(
        "import importlib.util, json, os, sys, unitp, engines.one\n"
        "def main(arguments):\n"
        "    found = {'unitp': unitp.__file__, 'engine': engines.one.__file__, 'arguments': arguments}\n"
        "    beside = importlib.util.find_spec('beside')\n"
        "    print(json.dumps(found | {'beside': beside is not None, 'cpus': sorted(os.sched_getaffinity(0))}))\n"
    )
    cpu = max(os.sched_getaffinity(0))
    line = [
        sys.executable,
        "-P",
        str(entry),
        "--cpus",
        str(cpu),
        "--package",
        f"engines={checkout}",
        "--role",
        "worker",
    ]
    assert json.loads(run(line, surroundings.folder)) == {
        "unitp": str(checkout / "unitp" / "__init__.py"),
        "engine": str(checkout / "engines" / "one.py"),
        "arguments": ["--role", "worker"],
        "beside": False,
        "cpus": [cpu],
    }


def test_only_the_drivers_own_interpreter_is_given_its_engine(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    assert package_of("unitp_numpy.executor:connect") == f"unitp_numpy={root / 'backends' / 'numpy'}"
    assert package_of("nowhere_at_all.engine:connect") == ""
    assert {"--package", "--plugin"} <= set(command(sys.executable, plugin="unitp_numpy"))
    assert not {"--package", "--plugin"} & set(command(str(tmp_path / "python"), plugin="unitp_numpy"))


def test_an_interpreter_is_named_in_full_and_its_links_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link in a virtual environment decides which one it is; and ranks start in another folder."""
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert full_path("venv/python") == str(tmp_path / "venv" / "python")
    monkeypatch.setenv("PATH", "venv")
    assert full_path("python") == str(tmp_path / "venv" / "python")
