"""The documents are true: their Python runs as it stands, their links lead somewhere, and the verbs they show exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

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
    assert command is not None, f"{words[0]} is no verb"
    if isinstance(command, click.Group) and command is not group:
        inner = command.get_command(context, words[1])
        assert inner is not None
        command = inner
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {w for w in words if w.startswith("-")} <= {*known, "--help"}


def test_every_verb_is_documented() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    assert [verb for verb in VERBS if f"`unitp {verb}" not in text] == []


def test_what_backends_import_of_unitp_is_what_contributors_are_told() -> None:
    told = re.search(
        r"backends import only (.*?), and not each\s+other", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL
    )
    assert told
    imported = set()
    for path in ROOT.glob("backends/*/unitp_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.split(".")[1] for name in names if name.startswith("unitp.")}
    assert set(re.findall(r"`(\w+)`", told[1])) == imported
