"""Whoever enters a folder has not read its files: nothing of it runs, whatever it is called."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from unitp.testing.surroundings import Surroundings

pytestmark = pytest.mark.system

SCRIPT = Path(sysconfig.get_path("scripts"), "unitp")


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A folder with a module of every name, and with a plug-in that says it is installed."""
    made = Surroundings(tmp_path)
    canary = (made.folder / "json.py").read_text()
    for name in ("click", "rich", "rich_click", "jinja2", "highspy", "gguf", "tokenizers", "packaging", "evil"):
        (made.folder / f"{name}.py").write_text(canary)
    about = made.folder / "evil-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[unitp]\nevil = evil\nnumpy = evil\n")
    return made


def run(around: Surroundings, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(around.home), **variables}
    arguments = [str(word) for word in command]
    return subprocess.run(arguments, cwd=around.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("begin", [(SCRIPT,), (sys.executable, "-P", "-m", "unitp")], ids=["script", "module"])
def test_nothing_of_a_folder_is_imported(around: Surroundings, begin: tuple[object, ...]) -> None:
    done = run(around, *begin, "doctor", "--no-start", "--backend", "numpy")
    assert (done.returncode, around.executed) == (0, []), done.stderr


def test_as_a_module_only_what_python_itself_imports_first_comes_from_a_folder(around: Surroundings) -> None:
    """`python -m` looks for its own `importlib` in the current folder, before anything of unitp is there."""
    for file in around.folder.glob("*.py"):
        if file.stem in sys.stdlib_module_names:
            file.unlink()
    (around.folder / "unitp" / "__init__.py").unlink()
    (around.folder / "unitp").rmdir()
    done = run(around, sys.executable, "-m", "unitp", "doctor", "--no-start", "--backend", "numpy")
    assert (done.returncode, around.executed) == (0, []), done.stderr


def test_an_interpreter_of_a_folder_is_not_run(around: Surroundings) -> None:
    program = around.programs / "srun"
    (around.folder / "unitp.toml").write_text(f'[backends.numpy]\npython = "{program}"\n')
    done = run(around, SCRIPT, "doctor")
    assert (done.returncode, around.executed) == (2, [])
    assert f'unitp.toml:\n\n[backends.numpy]\npython = "{program}"\n' in done.stderr
    (around.folder / "unitp.toml").unlink()
    (around.folder / "python3").symlink_to(program)
    done = run(
        around,
        SCRIPT,
        "doctor",
        "--no-start",
        "--backend",
        "numpy",
        UNITP_BACKENDS_NUMPY_PYTHON="python3",
        PATH=f":.:{os.environ['PATH']}",
    )
    assert around.executed == []
