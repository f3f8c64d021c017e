"""Help and completion: every verb, option and setting is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from unitp import cli

SMOLLM = "smollm2-135m"


def all_commands() -> list[tuple[str, click.Command]]:
    found = []
    for verb in cli.VERBS:
        command = __import__(f"unitp.cli.{verb}", fromlist=["command"]).command
        found.append((verb, command))
        if isinstance(command, click.Group):
            found += [(f"{verb} {name}", sub) for name, sub in command.commands.items()]
    return found


COMMANDS = dict(all_commands())


def test_help_lists_every_verb_with_a_line(unitp: Any) -> None:
    shown = unitp("--help")
    assert shown.code == 0
    for verb, about in cli.VERBS.items():
        assert f"{verb} " in shown.out
        assert about.split(",")[0] in " ".join(shown.out.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_verb_documents_every_option(unitp: Any, name: str) -> None:
    shown = unitp(*name.split(), "--help")
    assert shown.code == 0
    assert (COMMANDS[name].help or "").partition("\n")[0].split(",")[0].split(".")[0] in " ".join(shown.out.split())
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"
            assert max(parameter.opts, key=len) in shown.out


@pytest.mark.parametrize("name", [n for n, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_every_verb_takes_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


@pytest.mark.parametrize("name", [n for n in COMMANDS if any("--dtype" in p.opts for p in COMMANDS[n].params)])
def test_every_setting_is_a_flag_of_every_verb_that_runs_a_model(name: str) -> None:
    from unitp.config import DEFAULTS

    given = {opt for parameter in COMMANDS[name].params for opt in parameter.opts}
    assert {f"--{setting.replace('_', '-')}" for setting in DEFAULTS} <= given


def test_no_arguments_show_help_and_are_an_error(unitp: Any) -> None:
    assert unitp().code == 2
    assert unitp("config").code == 2


def test_the_version_is_the_distributions(unitp: Any) -> None:
    from importlib.metadata import version

    assert version("unitp") in unitp("--version").out


# completion


def complete(monkeypatch: pytest.MonkeyPatch, words: list[str], incomplete: str) -> list[str]:
    from click.shell_completion import ShellComplete

    found = ShellComplete(cli.group, {}, "unitp", "_UNITP_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize("verb", ["generate", "chat", "run", "compare", "bench", "doctor", "demo"])
def test_backends_are_completed_from_what_is_installed(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    given = [verb] if verb in ("doctor", "demo") else [verb, SMOLLM]
    assert {"numpy", "torch", "tensorflow", "mxnet"} <= set(complete(monkeypatch, [*given, "--backend"], ""))
    assert complete(monkeypatch, [*given, "--backend"], "t") == ["tensorflow", "torch"]


def test_verbs_models_and_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(monkeypatch, [], "") == list(cli.VERBS)
    assert complete(monkeypatch, ["generate"], "smo") == [SMOLLM]
    assert "--max-new-tokens" in complete(monkeypatch, ["generate", SMOLLM], "--m")


@pytest.mark.system
def test_the_shell_gets_completions() -> None:
    environment = {"_UNITP_COMPLETE": "bash_complete", "COMP_WORDS": "unitp ge", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("unitp")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["plain,generate"]
