"""Nothing that a user can set, call or hook into is undocumented: verbs, options, settings, exit codes, hooks, public names."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import isfunction
from pathlib import Path

import click
import pytest

import unitp
from unitp.cli import VERBS
from unitp.config import DEFAULTS, variable_of
from unitp.errors import RankError, UnitpError
from unitp.plugins import hookspecs
from unitp.plugins.discover import backends
from unitp.plugins.spec import BackendSpec, TransportSpec
from unitp.ranks.environment import KEPT

ROOT = Path(__file__).parents[2]
DOCS = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
EVERYTHING = "\n".join([(ROOT / "README.md").read_text("utf-8"), *DOCS.values()])
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
COMMAND_LINE = DOCS["command-line.md"]


def transports() -> list[TransportSpec]:
    return [offer.value for offer in hookspecs.TRANSPORTS.all().values()]


def options() -> list[str]:
    """The long names of all options of all verbs."""
    found: list[click.Parameter] = []
    for verb in VERBS:
        command = import_module(f"unitp.cli.{verb}").command
        for one in (command, *getattr(command, "commands", {}).values()):
            found += one.params
    return sorted({max(p.opts, key=len) for p in found if isinstance(p, click.Option)})


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_documented(verb: str) -> None:
    assert re.search(rf"^\| `unitp {verb}[ `]", COMMAND_LINE, re.MULTILINE)


def missing(options: list[str], text: str) -> list[str]:
    """The options that stand in no code span or code block of a text as a word of their own."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    written = set(re.findall(WORD, code))
    return [option for option in options if option not in written]


WORD = r"(?<![\w-])--[a-z][a-z-]*"


def test_every_option_is_documented() -> None:
    assert missing(options(), COMMAND_LINE) == []


@pytest.mark.parametrize("option", options())
def test_an_option_whose_documentation_is_deleted_is_missed(option: str) -> None:
    """Longer options that begin alike (`--prompt`, `--prompt-ids`) do not stand in for it."""
    without = re.sub(re.escape(option) + r"(?![\w-])", "deleted", COMMAND_LINE)
    assert missing(options(), without) == [option]


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_setting_is_documented_with_its_flag_variable_and_default(name: str) -> None:
    (row,) = [line for line in COMMAND_LINE.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"`--{name.replace('_', '-')}`" in row
    assert f"`{variable_of(name)}`" in row
    assert f"{DEFAULTS[name]:g}" in row if isinstance(DEFAULTS[name], float) else str(DEFAULTS[name]) in row


def test_where_settings_come_from_is_documented() -> None:
    for word in (
        "unitp.toml",
        "UNITP_CONFIG",
        "~/.config/unitp/unitp.toml",
        "XDG_CONFIG_HOME",
        "[backends.torch.env]",
        "[backends.mxnet]",
        "UNITP_BACKENDS_MXNET_PYTHON",
    ):
        assert word in COMMAND_LINE


@pytest.mark.parametrize("name", KEPT)
def test_a_variable_that_ranks_inherit_is_documented(name: str) -> None:
    assert f"`{name}`" in COMMAND_LINE.partition("## What ranks inherit")[2].partition("##")[0]


def test_exit_codes_are_documented() -> None:
    for code in (0, 1, UnitpError.exit_code, RankError.exit_code, 130):
        assert f"{code}" in COMMAND_LINE.partition("Exit")[2].partition("\n\n")[0]


@pytest.mark.parametrize("hook", [n for n, f in vars(hookspecs).items() if isfunction(f) and n.startswith("unitp_")])
def test_a_hook_is_documented(hook: str) -> None:
    assert f"`{hook}`" in DOCS["write-a-backend.md"] + DOCS["transports.md"]


@pytest.mark.parametrize("field", BackendSpec.__struct_fields__)
def test_what_a_backend_says_of_itself_is_documented(field: str) -> None:
    assert re.search(rf"^    {field}=", DOCS["write-a-backend.md"], re.MULTILINE)


@pytest.mark.parametrize("field", TransportSpec.__struct_fields__)
def test_what_a_transport_says_of_itself_is_documented(field: str) -> None:
    assert re.search(rf"^    {field}=", DOCS["transports.md"], re.MULTILINE)


@pytest.mark.parametrize("spec", [*backends().values(), *transports()], ids=lambda spec: spec.name)
def test_what_others_reach_of_a_backend_or_transport_is_documented(spec: BackendSpec | TransportSpec) -> None:
    rows = [
        line for line in SECURITY.partition("without isolation")[2].splitlines() if line.startswith(f"| {spec.name} |")
    ]
    assert len(rows) == bool(spec.exposed)


def test_a_framework_that_nobody_mends_is_documented_once() -> None:
    assert {spec.name for spec in backends().values() if spec.notice} == {"mxnet"}
    assert SECURITY.count("Apache retired MXNet in 2023") == 1
    assert "Apache retired MXNet" not in EVERYTHING
    assert "SECURITY.md#mxnet-is-retired" in EVERYTHING


@pytest.mark.parametrize("name", unitp.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(unitp, name).__doc__
    assert re.search(rf"`[^`\n]*\b{name}\b|^```.*?\b{name}\b.*?^```", EVERYTHING, re.MULTILINE | re.DOTALL)
