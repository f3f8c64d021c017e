"""Names of strangers go through every verb and stay names.

One name holds everything that some medium would obey. It is the name of a model, of parameters, values, symbols, phases,
devices, machines, backends and files; a terminal obeys nothing of what is printed, and JSON gives the same names back.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile import COLOURS, EVERYTHING, SPINNER, WORD, harmless, tagged
from hostile_plan import built, machine_text, strings

from unitp import cli, plan_file, texts
from unitp.certificate import CertifiedPlan
from unitp.cli import output
from unitp.cli.plugins import every_hook
from unitp.comparison.breakdown import Line, PhaseTimes
from unitp.comparison.compare import Comparison, Verdict
from unitp.explain.patterns import pattern
from unitp.frontends import known_models
from unitp.frontends.builder import Builder
from unitp.frontends.model import Model
from unitp.graph.graph import Graph
from unitp.plugins import discover, entry_points, hooks
from unitp.plugins.entry_points import Plugin
from unitp.plugins.hooks import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement


@pytest.fixture(scope="module")
def graph() -> Graph:
    return built(True)[0]


@pytest.fixture(scope="module")
def made() -> CertifiedPlan:
    return built(True)[1]


class Guest:
    """A plug-in with a hostile name in it."""

    @hookimpl
    def unitp_machines(self) -> Mapping[str, Path]:
        """A profile."""
        return {tagged("profile"): Path("machine.toml")}


@pytest.fixture
def at(unitp: Any, graph: Graph, made: CertifiedPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the plan in a file; models, backends and known models have hostile names."""
    plan_file.save(made, "plan.json")
    other = msgspec.structs.replace(
        made, parameters={**made.parameters, tagged("bias"): made.parameters[tagged("bias")].replicated(1)}
    )
    plan_file.save(other, "other.json")
    pinned = msgspec.structs.replace(made.certificate, pins=(tagged("pin"),))
    plan_file.save(msgspec.structs.replace(made, certificate=pinned), "pinned.json")
    Path("machine.toml").write_text(machine_text(*map(tagged, ("machine", "slow", "fast"))), "utf-8")
    model = Model(tagged("model"), graph)
    monkeypatch.setattr("unitp.frontends.load", lambda name: model)
    spec = BackendSpec(
        name=tagged("backend"), distribution=tagged("distribution"), runtime=tagged("runtime"),
        requires=(Requirement(tagged("requirement")),), install=tagged("install"), dtypes=("float32",), cluster="x:y", engine="x:y",
    )  # fmt: skip
    broken = discover.Broken(tagged("broken"), tagged("distribution"), tagged("reason"))
    monkeypatch.setattr(discover, "registry", lambda: discover.Registry({spec.name: spec}, {spec.name: "x"}, (broken,)))
    plugin = Plugin(tagged("plugin"), Guest(), tagged("distribution"), tagged("version"))
    monkeypatch.setattr(entry_points, "loaded", lambda: ((plugin,), (broken,)))
    monkeypatch.setattr(hooks, "loaded", entry_points.loaded)
    for hook in every_hook():
        monkeypatch.setattr(hook, "_strangers", None)
    known = known_models.Known(tagged("known"), tagged("package"), tagged("version"), "file", 1, "", tagged("about"))
    monkeypatch.setattr(known_models, "KNOWN", {known.name: known})
    for name, value in (("HOME", str(tmp_path)), ("UNITP_MACHINE", WORD), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return tmp_path


CALLS: dict[str, tuple[tuple[str, ...], int]] = {
    "doctor": (("--no-start",), 1),
    "plugins": ((), 0),
    "models": ((), 0),
    "machines": (("machine.toml",), 0),
    "plan": (("m", "--mesh", "tp=2", "--machine", "machine.toml", "--phase", "x:REPLACED=8"), 2),
    "show": (("pinned.json", "--html", "page.html"), 0),
    "explain": (("plan.json",), 0),
    "diff": (("plan.json", "other.json"), 0),
    "program": (("plan.json", "--rank", "1"), 0),
    "export": (("plan.json", "--to", "dtensor", "-o", "table.py"), 0),
    "config": (("show", "--origin"), 0),
    "run": (("m", "-o", "out.npz", "--input", f"x={WORD}.npy"), 2),
    "generate": (("m", "--prompt", WORD, "--machine", "machine.toml"), 2),
    "chat": (("m", "--machine", "machine.toml"), 2),
    "compare": (("m", "--prompt", WORD, "--machine", "machine.toml"), 2),
    "calibrate": (("-o", "m.toml", "--backend", WORD), 2),
    "bench": (("m", "--machine", WORD), 2),
    "trace": (("m", "-o", f"{'x' * 300}{WORD}"), 2),
    "demo": (("--backend", WORD), 2),
}
"""Every verb, with arguments that make it print names, and what it leaves with. Those that start ranks refuse the request."""


def test_every_verb_is_called_here() -> None:
    assert set(CALLS) == set(cli.VERBS)


@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "terminal"])
@pytest.mark.parametrize("verb", CALLS)
def test_a_terminal_obeys_no_name(
    verb: str, terminal: bool, at: Path, unitp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    arguments, code = CALLS[verb]
    said = unitp(verb, *arguments)
    out, err = said.out, said.err
    assert said.code == code, err
    assert harmless(out), repr(out)
    assert harmless(SPINNER.sub("", err)), repr(err)
    shown = COLOURS.sub("", out + err)
    assert "Traceback" not in shown
    if verb not in ("config", "trace", "plan"):
        assert "[/x][bold]b[/bold]" in shown.replace("\n", ""), shown
    assert not list(at.glob("**/ran")), "nothing of a name was run"
    assert {p.name for p in at.iterdir()} <= {
        "plan.json",
        "other.json",
        "pinned.json",
        "machine.toml",
        "page.html",
        "table.py",
    }


@pytest.mark.parametrize("verb", [v for v, (_, code) in CALLS.items() if code != 2])
def test_json_gives_the_names_back(verb: str, at: Path, unitp: Any) -> None:
    arguments, code = CALLS[verb]
    said = unitp(verb, *arguments, "--json")
    assert said.code == code, said.err
    assert all(c.isprintable() or c == "\n" for c in said.out), "what cannot be seen is escaped"
    names = set(strings(said.json))
    for what in TOLD[verb]:
        assert names & {tagged(what), pattern(tagged(what))}, what


TOLD = {
    "doctor": ("backend", "runtime", "requirement", "broken", "reason"),
    "plugins": ("profile", "distribution", "version", "broken", "reason"),
    "models": ("known", "package", "version", "about"),
    "machines": ("slow", "fast"),
    "show": ("model", "weight", "phase", "slow", "pin", "machine"),
    "explain": ("phase",),
    "diff": ("bias", "phase"),
    "program": ("input", "weight", "hidden", "result", "phase again"),
    "export": (),
    "config": (),
}
"""What the JSON of each verb names: as it is, or as the pattern of alike names (digits as *)."""


def test_a_plan_is_made_and_kept_with_its_names(graph: Graph, made: CertifiedPlan, at: Path, unitp: Any) -> None:
    """`plan` reads sizes from its command line, where a name has neither "=" nor ","."""
    for hostile in (True, False):
        b = Builder("g")
        symbol = re.sub("[=,]", ";", EVERYTHING) if hostile else "s"
        b.graph(b.Relu(b.input("x", "float32", (symbol, 64))))
    assert plan_file.load("plan.json") == made
    assert plan_file.decode(plan_file.encode(made)) == made
    said = unitp("plan", "m", "--mesh", "tp=2", "--phase", f"{WORD}:batch=1")
    assert (said.code, harmless(said.err)) == (2, True)


def test_generated_text_reaches_a_terminal_without_commands_and_a_pipe_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream(io.StringIO):
        def __init__(self, terminal: bool) -> None:
            super().__init__()
            self.isatty = lambda: terminal  # type: ignore[method-assign]

    for terminal in (False, True):
        monkeypatch.setattr(sys, "stdout", stream := Stream(terminal))
        output.say_generated(EVERYTHING)
        text = stream.getvalue()
        if not terminal:
            assert text == EVERYTHING
            continue
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
        assert r"\x1b[31mred\x1b[2J" in text
        assert "\U0001f9d1\u200d\U0001f680" in text, "letters and joiners of languages stay"
        assert "a\nError: forged\\r\nb" in text


def test_tables_that_follow_a_run_obey_no_name(
    graph: Graph, made: CertifiedPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitp.cli.bench import print_phase
    from unitp.cli.compare import print_comparison
    from unitp.cli.demo import print_plan, print_texts

    monkeypatch.setenv("FORCE_COLOR", "1")
    verdict = Verdict(
        tagged("backend"),
        "native",
        tagged("runtime"),
        "disagrees",
        1.0,
        1.0,
        1.0,
        False,
        texts=[EVERYTHING],
        reasons=[tagged("reason")],
    )
    found = Comparison(tagged("model"), "tp=2", "float32", 0.0, {tagged("backend"): verdict})
    print_comparison(found)
    print_texts(found)
    print_plan(made, graph)
    print_phase(
        PhaseTimes(tagged("phase"), {"batch": 1}, 1, 1.0, 1.0, tagged("basis"), (Line(tagged("class"), 1, 1.0, 1.0),))
    )
    with output.progress(tagged("progress")) as tell:
        tell(tagged("told"))
    with output.progress_bar(tagged("bar")) as told:
        told(tagged("stage"), 0.5)
    out, err = capsys.readouterr()
    assert out.count("[/x][bold]b[/bold]") >= 7
    rest = SPINNER.sub("", err)
    plain = COLOURS.sub("", out).replace(texts.shown("\u200d"), "")
    assert all(c.isprintable() or c in f"\n{output.PROSE}" for c in plain), repr(plain)
    assert harmless(rest), repr(rest)


def test_only_one_module_prints() -> None:
    """Markup, and whoever reads it, are in no verb."""
    for file in Path(cli.__file__).parent.glob("*.py"):
        if file.name != "output.py":
            assert not re.search(
                r"rich\.markup|from rich|import rich\b|\.print\(|markup=|\bprint\(", file.read_text()
            ), file
