"""Names of strangers go through every output and stay names.

One name holds everything that some medium would obey. It is the name of a model, of parameters, values, symbols, phases,
devices, machines, backends and files; whatever unitp writes is then read as its medium reads it: a terminal obeys nothing,
JSON gives the same names back, a page has the elements that it has for harmless names, Python has nothing but literals.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hostile import COLOURS, EVERYTHING, NAMES, SPINNER, harmless, tagged
from hypothesis import given
from hypothesis import strategies as st

from unitp import cli, plan_file, texts
from unitp.certificate import CertifiedPlan, Unused
from unitp.cli import output
from unitp.cli.plugins import every_hook
from unitp.cli.run import require_members, write_archive
from unitp.comparison.breakdown import Line, PhaseTimes
from unitp.comparison.compare import Comparison, Verdict
from unitp.cost import Machine
from unitp.cost.machine_file import parse_machine as read_machine
from unitp.errors import GraphError, InputError, MeshError, PlanError, UnitpError
from unitp.explain.patterns import pattern
from unitp.frontends import known_models
from unitp.frontends.builder import Builder
from unitp.frontends.model import Model
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase
from unitp.plugins import discover, entry_points, hooks
from unitp.plugins.entry_points import Plugin
from unitp.plugins.hooks import hookimpl
from unitp.plugins.spec import BackendSpec, Requirement
from unitp.program.lower import lower
from unitp.ranks.logs import Forwarder
from unitp.report import html, trace
from unitp.report.export import export
from unitp.session.executor import TracedCall
from unitp.testing.models import TINY, write_huggingface
from unitp.wire.messages import Trace

WHAT = ("model", "input", "weight", "bias", "hidden", "result", "symbol", "phase", "slow", "fast", "machine")


def machine_text(name: str, slow: str, fast: str) -> str:
    """A machine file of two unlike devices."""
    return f"""
        name = {texts.toml_text(name)}
        ranks = [{texts.toml_text(slow)}, {texts.toml_text(fast)}]
        [devices.{texts.toml_text(slow)}]
        flops_per_s = {{ float32 = 1e6 }}
        memory_bytes_per_s = 1e6
        operator_s = 0.0
        [devices.{texts.toml_text(fast)}]
        flops_per_s = {{ float32 = 3e6 }}
        memory_bytes_per_s = 3e6
        operator_s = 0.0
        [link]
        latency_s = 1e-9
        bytes_per_s = 1e12
        call_s = 1e-9
    """


@cache
def built(hostile: bool) -> tuple[Graph, CertifiedPlan]:
    """A small graph with a plan for two unlike devices; every name is hostile, or none."""
    n = {what: tagged(what) if hostile else f"plain {what}" for what in WHAT}
    b = Builder(n["model"])
    x = b.input(n["input"], "float32", (n["symbol"], 64))
    h = b.op("MatMul", x, b.random(n["weight"], (64, 256), seed=1), name=n["hidden"])
    r = b.op("Add", h, b.random(n["bias"], (256,), seed=2))
    graph = b.graph(b.op("MatMul", b.Relu(r), b.random(f"{n['weight']} down", (256, 64), seed=3), name=n["result"]))
    machine = read_machine(machine_text(n["machine"], n["slow"], n["fast"]))
    phases = [Phase(n["phase"], {n["symbol"]: 8}, 2.0), Phase(f"{n['phase']} again", {n["symbol"]: 1})]
    made = plan(Request(graph, Mesh(tp=2), phases, machine=machine, model=n["model"]))
    certificate = msgspec.structs.replace(
        made.certificate,
        solver=n["model"] if hostile else made.certificate.solver,
        unused=(Unused("tp", (n["phase"],), 1.0, {n["phase"]: 1.0}),),
    )
    return graph, msgspec.structs.replace(made, certificate=certificate)


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
def at(graph: Graph, made: CertifiedPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the plan in a file; models, backends and known models have hostile names."""
    monkeypatch.chdir(tmp_path)
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


WORD = EVERYTHING.replace("\0", "")
"""What an argument of a command line can be."""

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


def call(capture: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capture.readouterr()


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_every_verb_is_called_here() -> None:
    assert set(CALLS) == set(cli.VERBS)


@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "terminal"])
@pytest.mark.parametrize("verb", CALLS)
def test_a_terminal_obeys_no_name(
    verb: str, terminal: bool, at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    arguments, code = CALLS[verb]
    found, out, err = call(capsys, verb, *arguments)
    assert found == code, err
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
def test_json_gives_the_names_back(verb: str, at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code = CALLS[verb]
    found, out, err = call(capsys, verb, *arguments, "--json")
    assert found == code, err
    assert all(c.isprintable() or c == "\n" for c in out), "what cannot be seen is escaped"
    names = set(strings(json.loads(out)))
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


def test_a_plan_is_made_and_kept_with_its_names(
    graph: Graph, made: CertifiedPlan, at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan` reads sizes from its command line, where a name has neither "=" nor ","."""
    for hostile in (True, False):
        b = Builder("g")
        symbol = re.sub("[=,]", ";", EVERYTHING) if hostile else "s"
        b.graph(b.Relu(b.input("x", "float32", (symbol, 64))))
    assert plan_file.load("plan.json") == made
    assert plan_file.decode(plan_file.encode(made)) == made
    found, _, err = call(capsys, "plan", "m", "--mesh", "tp=2", "--phase", f"{WORD}:batch=1")
    assert (found, harmless(err)) == (2, True)


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


def test_what_ranks_print_commands_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_bytes(f"{EVERYTHING}\n".encode())
    forwarder = Forwarder()
    forwarder.start({"rank0": tmp_path / "log"})
    forwarder.stop()
    printed = capsys.readouterr().err
    assert printed.startswith("[rank0] ")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)


# errors


@pytest.mark.parametrize("name", NAMES)
def test_an_error_commands_no_terminal_whoever_prints_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = UnitpError(f'no "{NAMES[name]}"', hint=f"Did you mean {NAMES[name]}?")
    assert all(c.isprintable() or c in "\n\t" for c in str(error))
    cli.fail(error)
    assert harmless(capsys.readouterr().err.replace("\t", " "))


def test_an_argument_that_click_refuses_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = WORD
    for arguments in (
        ["show", "a", text], ["show", f"--{text}"], [text], ["plan", "m", "--objective", text], ["bench", "m", "--new-tokens", text],
    ):  # fmt: skip
        code, out, err = call(capsys, *arguments)
        assert (code, harmless(out), harmless(err)) == (2, True, True), repr(err)


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_names_and_nothing_else(name: str, made: CertifiedPlan) -> None:
    with pytest.raises(MeshError) as caught:
        Mesh(**{NAMES[name]: 2})
    assert all(c.isprintable() or c in "\n\t" for c in caught.value.message)
    file = json.loads(plan_file.encode(made))
    file["mesh"] = {NAMES[name]: 2}
    with pytest.raises(PlanError):
        plan_file.decode(json.dumps(file).encode())


# pages


class Skeleton(HTMLParser):
    """Elements and the names of their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.comments = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def test_a_page_has_the_elements_that_it_has_for_harmless_names() -> None:
    wide = re.compile(r"<span aria-hidden.*?</span>\n")  # names of steps that are wide enough: as the plan has it
    plain, hostile = (wide.sub("", html.page(plan_, graph)) for graph, plan_ in (built(False), built(True)))
    assert Skeleton(hostile).found == Skeleton(plain).found
    assert Skeleton(hostile).comments == 0
    root = ElementTree.fromstring(hostile.replace("<!DOCTYPE html>", "", 1).strip())
    assert root.find("head/title").text == f"{texts.shown(tagged('model'))} on tp=2"  # type: ignore[union-attr]
    pictures = re.findall(r"<svg.*?</svg>", hostile, re.DOTALL)
    assert len(pictures) > 10
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert all(c.isprintable() or c in "\n\t" for c in hostile)


# exports


ALLOWED = (
    ast.Module,
    ast.Expr,
    ast.Constant,
    ast.Assign,
    ast.Name,
    ast.Store,
    ast.Load,
    ast.Dict,
    ast.List,
    ast.ImportFrom,
    ast.alias,
    ast.Call,
)


def executed(source: str) -> dict[str, Any]:
    """What a written module defines, after it was found to be made of literals and of DTensor's two placements."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        assert isinstance(node, ALLOWED), ast.dump(node)
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id in ("Shard", "Replicate")
        if isinstance(node, ast.ImportFrom):
            assert (node.module, [a.name for a in node.names]) == ("torch.distributed.tensor", ["Replicate", "Shard"])
    placements = SimpleNamespace(Replicate=lambda: "R", Shard=lambda dim: f"S({dim})")
    space: dict[str, Any] = {"__builtins__": {"__import__": lambda *_: placements}}
    exec(compile(tree, "exported", "exec"), space)
    return space


def test_exported_python_is_made_of_literals(
    graph: Graph, made: CertifiedPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = export(made, graph, "dtensor", suffix=".py").data.decode()
    assert all(c.isprintable() or c == "\n" for c in source)
    found = executed(source)
    assert set(found["PLACEMENTS"]) == {tagged("weight"), tagged("bias"), f"{tagged('weight')} down"}
    assert tagged("model") in found["__doc__"]
    assert found["MESH"] == {"tp": 2}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_tp_plan_is_made_of_literals(name: str, tmp_path: Path, llama: tuple[Graph, CertifiedPlan]) -> None:
    graph, made = llama
    hostile = msgspec.structs.replace(made, model=NAMES[name])
    for to in ("tp-plan", "dtensor"):
        found = executed(export(hostile, graph, to, suffix=".py").data.decode())
        assert NAMES[name] in found["__doc__"]
        json.loads(export(hostile, graph, to).data)
    assert found["PLACEMENTS"]


@pytest.fixture(scope="module")
def llama() -> tuple[Graph, CertifiedPlan]:
    from unitp.testing.models import tiny

    graph = tiny().graph
    return graph, plan(Request(graph, Mesh(tp=2), model="tiny"))


def test_exported_json_and_onnx_have_the_names(graph: Graph, made: CertifiedPlan) -> None:
    onnx = pytest.importorskip("onnx")
    told = json.loads(export(made, graph, "dtensor").data)
    assert (told["model"], tagged("weight") in told["parameters"]) == (tagged("model"), True)
    model = onnx.load_from_string(export(made, graph, "onnx-sharding").data)
    assert {tagged("input"), tagged("weight"), tagged("bias")} <= {i.name for i in model.graph.input}
    assert model.graph.name == tagged("model")
    assert [o.name for o in model.graph.output] == [tagged("result")]
    assert {p.key: p.value for p in model.metadata_props}["unitp.phase"] == f"{tagged('phase')} again"


def test_a_trace_has_the_names(graph: Graph, made: CertifiedPlan, tmp_path: Path) -> None:
    program = lower(graph, made, tagged("phase"))
    call = TracedCall(program, 0, 10, tuple(Trace(0, 9, ((0, 1),)) for _ in range(2)))
    trace.save([call], Machine(), tmp_path / "trace.json", tagged("title"))
    told = json.loads((tmp_path / "trace.json").read_bytes())
    assert f"driver of {tagged('title')}" in set(strings(told))
    assert any(tagged("hidden") in name for name in strings(told))


# files


def test_models_with_odd_names_of_files_are_planned_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder's name may be any bytes but a slash; what is made of them stays in the folder that was named."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate((*(n for k, n in NAMES.items() if k != "path"), "-o", "\udcff\udc80")):
        at = write_huggingface(tmp_path / name.translate({0: "0", 47: "_"}), TINY)
        out = f"plan{number}{at.name}.json"
        code, said, err = call(capsys, "plan", f"./{at.name}", "--mesh", "tp=2", "-o", f"./{out}", "--json")
        assert code == 0, err
        told = json.loads(said)
        assert (told["model"], told["output"]) == (texts.as_unicode(at.name), f"./{out}")
        for verb, more in (
            ("show", ["--html", f"./p{out}.html"]),
            ("export", ["--to", "tp-plan", "-o", f"./t{out}.py"]),
        ):
            code, said, err = call(capsys, verb, f"./{out}", *more, "--model", f"./{at.name}")
            assert (code, harmless(said), harmless(err)) == (0, True, True), err
    assert not list(tmp_path.glob("**/ran"))


def test_an_archive_has_no_member_outside_its_folder() -> None:
    for name in ("x", "file", "allow_pickle", "a/b", "a..b", *(NAMES[n] for n in ("markup", "colours", "python"))):
        require_members([name])
        write_archive(file := io.BytesIO(), {name: np.arange(3)})
        with np.load(io.BytesIO(file.getvalue())) as found:
            assert [*found] == [name]
            np.testing.assert_array_equal(found[name], np.arange(3))
    for name in (
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        "..",
        "c:\\x",
        "..\\x",
        "\\\\host\\x",
        "a\0b",
        "\udcff",
        NAMES["path"],
    ):
        with pytest.raises(InputError, match="cannot be the name of a file in an archive"):
            require_members([name])


def test_names_that_are_no_unicode_are_refused_where_a_graph_gets_its_hash() -> None:
    b = Builder("g")
    with pytest.raises(GraphError, match="is not Unicode"):
        _ = b.graph(b.Relu(b.input("\udcff", "float32", (4,)))).hash


# the doors


@given(st.text())
def test_a_literal_means_its_text(text: str) -> None:
    made = texts.literal(text)
    assert ast.literal_eval(made) == text
    assert made.isprintable()


@given(st.text())
def test_toml_means_its_text(text: str) -> None:
    made = f"{texts.toml_key(text)} = {texts.toml_text(text)}"
    assert tomllib.loads(made) == {text: text}
    assert made.isprintable()


@given(st.text(st.characters(exclude_categories=[])))
def test_json_for_a_terminal_means_the_same(text: str) -> None:
    made = texts.shown_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))
    assert json.loads(made) == {text: [text]}
    assert all(c.isprintable() or c == "\n" for c in made)


@given(st.text(st.characters(exclude_categories=[])))
def test_what_is_shown_can_be_seen(text: str) -> None:
    assert texts.shown(text).isprintable()
    assert texts.shown(texts.shown(text)) == texts.shown(text)
    assert texts.as_unicode(text).encode().decode() == texts.as_unicode(text)
    assert not texts.CONTROLS.search(texts.tame(text))


def test_only_one_module_prints() -> None:
    """Markup, and whoever reads it, are in no verb."""
    for file in Path(cli.__file__).parent.glob("*.py"):
        if file.name != "output.py":
            assert not re.search(
                r"rich\.markup|from rich|import rich\b|\.print\(|markup=|\bprint\(", file.read_text()
            ), file
