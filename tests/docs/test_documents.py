"""The documents are true: their Python runs as it stands, their links lead somewhere, and the verbs they show exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest
import rich_click as click

from unitp.cli import VERBS, group

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("backends/*/README.md")])
RUNNING = [ROOT / "README.md", ROOT / "docs" / "quick-start.md"]
"""Documents whose Python blocks, one after the other, are a program."""


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", RUNNING, ids=lambda path: path.name)
def test_the_python_in_a_document_runs(document: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(document, "python"))
    assert "unitp.launch" in code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The capital of France is" in done.stdout or "agrees" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8"))
    assert [t for t in targets if not t.startswith("http") and not (document.parent / t).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_and_names_that_are_told_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    paths = re.findall(r"`((?:unitp|backends|tests|docs|examples)/[^`\s]*)`", text)
    paths += re.findall(r"`(\w[\w.-]*\.md)`", text)
    assert [
        p for p in paths if not any((folder / p).exists() for folder in (ROOT, document.parent, ROOT / "docs"))
    ] == []
    for backend, module in re.findall(r"\bunitp_(numpy|torch|tensorflow|mxnet)\.(\w+)", text):
        assert (
            ROOT / "backends" / backend / f"unitp_{backend}" / f"{module}.py"
        ).exists()  # importing it imports the framework
    for dotted in re.findall(r"\bunitp(?:\.\w+)+", text.replace("unitp.toml", "")):
        resolve_name(dotted)


def commands() -> list[tuple[str, str]]:
    """Every command line of unitp that a document shows, with the document's name."""
    found = []
    for document in DOCUMENTS:
        lines = [line for block in blocks(document, "") for line in block.splitlines() if line.startswith("unitp ")]
        lines += re.findall(r"`(unitp [^`]+)`", document.read_text("utf-8"))
        found += [(name(document), re.split(r"\s{3,}", line)[0]) for line in lines]
    return found


@pytest.mark.parametrize("document,line", commands())
def test_a_command_that_is_shown_exists_with_its_options(document: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "VERB":
        return
    context = click.Context(group, info_name="unitp")
    context.meta["unitp.verb"] = words[0]
    command = group if words[0].startswith("-") else group.get_command(context, words[0])
    assert command is not None, f"{words[0]} is not a verb"
    if isinstance(command, click.Group) and command is not group:
        inner = command.get_command(context, words[1])
        assert inner is not None
        command = inner
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {w for w in words if w.startswith("-")} <= {*known, "--help"}


def test_every_verb_is_documented() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    assert [verb for verb in VERBS if f"`unitp {verb}" not in text] == []


def test_the_layers_that_contributors_are_told_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    (told,) = [block for block in blocks(ROOT / "CONTRIBUTING.md", "") if " > " in block]
    assert [re.split(r", ", layer) for layer in told.replace("\n", " ").strip().split(" > ")] == [
        re.split(r" [|:] ", layer) for layer in layers
    ]


def test_what_backends_import_of_unitp_is_what_contributors_are_told() -> None:
    told = re.search(
        r"backends and transports import only (.*?), and not each\s+other",
        (ROOT / "CONTRIBUTING.md").read_text("utf-8"),
        re.DOTALL,
    )
    assert told
    imported = set()
    for path in ROOT.glob("backends/*/unitp_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.split(".")[1] for name in names if name.startswith("unitp.")}
    assert set(re.findall(r"`(\w+)`", told[1])) == imported
