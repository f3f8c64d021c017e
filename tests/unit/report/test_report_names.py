"""Names of strangers in pages, exports and traces stay names.

A page has the elements that it has for harmless names, Python has nothing but literals, JSON and ONNX give the same names back.
"""

from __future__ import annotations

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hostile import NAMES, tagged
from hostile_plan import built, strings

from unitp import texts
from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.program.lower import lower
from unitp.report import html, trace
from unitp.report.export import export
from unitp.session.executor import TracedCall
from unitp.testing.models import tiny
from unitp.wire.messages import Trace


@pytest.fixture(scope="module")
def graph() -> Graph:
    return built(True)[0]


@pytest.fixture(scope="module")
def made() -> CertifiedPlan:
    return built(True)[1]


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
