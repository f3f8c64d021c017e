"""What the command line imports: help is there at once, and the driver knows no framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unitp import cli

SMOLLM = "smollm2-135m"


HEAVY = {"torch", "tensorflow", "mxnet", "mpi4py", "onnx", "onnx_ir", "transformers"}


def modules_after(*arguments: str) -> set[str]:
    script = (
        "import sys\nfrom unitp.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint('loaded', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded ")[2].split())


@pytest.mark.system
def test_importing_unitp_imports_next_to_nothing() -> None:
    script = "import sys; before = set(sys.modules); import unitp; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"unitp", *sys.stdlib_module_names}


@pytest.fixture(scope="module")
def modules_after_help() -> dict[str, set[str]]:
    """By verb ("" for all of them), what showing its help imports: each in a fork of a process that has done nothing else."""
    script = (
        "import os, sys\nfrom unitp.cli import main\nfor verb in sys.argv[1:]:\n    if os.fork() == 0:\n        try:\n"
        "            main([*filter(None, [verb]), '--help'])\n        except SystemExit as end:\n            assert not end.code\n"
        "        print(verb, *sys.modules, file=sys.stderr, flush=True)\n        os._exit(0)\n    assert os.wait()[1] == 0"
    )
    done = subprocess.run([sys.executable, "-c", script, "", *cli.VERBS], capture_output=True, text=True, check=True)
    found = [line.split(" ") for line in done.stderr.splitlines()]
    return {verb: set(modules) for verb, *modules in found}


@pytest.mark.system
@pytest.mark.parametrize("verb", ["", *cli.VERBS], ids=lambda verb: verb or "unitp")
def test_help_imports_the_command_line_and_nothing_of_what_it_commands(
    verb: str, modules_after_help: dict[str, set[str]]
) -> None:
    """That is why it is there at once. How soon is measured by `make bench-overheads`."""
    loaded = modules_after_help[verb]
    packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert packages - {"__main__", "_distutils_hack"} <= {
        "unitp",
        "click",
        "rich",
        "rich_click",
        "msgspec",
        "typing_extensions",
    }
    own = {name for name in loaded if name.partition(".")[0] == "unitp" and not name.startswith("unitp.cli.")}
    allowed = "unitp unitp.cli unitp.errors unitp.host unitp.texts" + " unitp.config unitp.files unitp.mesh" * bool(
        verb
    )
    assert own <= set(allowed.split())
    assert verb or not loaded & {f"unitp.cli.{name}" for name in cli.VERBS}, "no verb is imported to list them all"


@pytest.mark.system
@pytest.mark.parametrize("verb", ["plan", "show", "program", "models", "config", "doctor"])
def test_the_driver_imports_no_framework(verb: str, tmp_path: Path, unitp: Any) -> None:
    file = tmp_path / "plan.json"
    unitp("plan", SMOLLM, "-o", file)
    arguments = {"plan": [SMOLLM], "show": [str(file)], "program": [str(file)], "config": ["show"]}
    more = ["--no-start"] if verb == "doctor" else arguments.get(verb, [])
    assert modules_after(verb, *more) & HEAVY == set()
