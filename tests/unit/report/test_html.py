"""The page of a plan: well formed, needs nothing else, and says what the plan says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

import unitp
from unitp.certificate import CertifiedPlan
from unitp.cost import Machine
from unitp.errors import InputError, PlanError
from unitp.explain.description import moved
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.report import html
from unitp.report.drawing import bars, grid
from unitp.report.html import bytes_text, time_text
from unitp.report.phase_steps import phase_page, short
from unitp.testing.models import WIDE, mlp, tiny

MESHES = [{}, {"tp": 2}, {"tp": 3}, {"dp": 2, "tp": 2}, {"dp": 2, "tp": 8}, {"tp": 16}]


@cache
def model(layers: int = 2) -> unitp.Model:
    return tiny(WIDE, layers=layers) if layers > 2 else tiny()


@cache
def planned(layers: int = 2, pins: tuple[str, ...] = (), **mesh: int) -> tuple[CertifiedPlan, str]:
    made = unitp.plan(model(layers), Mesh(**mesh), pins=pins)
    return made, html.page(made, model(layers).graph)


def tree(text: str) -> ElementTree.Element:
    """The page as XML, which it is, too, but for its first line."""
    return ElementTree.fromstring(re.sub(r"<!DOCTYPE html>", "", text, count=1).strip())


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


@pytest.mark.parametrize("mesh", MESHES)
def test_the_page_is_well_formed_for_every_mesh(mesh: dict[str, int]) -> None:
    made, text = planned(**mesh)
    assert text.startswith("<!DOCTYPE html>\n")
    root = tree(text)
    assert root.find("head/title").text == f"tiny on {made.mesh}"  # type: ignore[union-attr]
    names = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(names) == len(set(names))
    assert {a.get("href") for a in root.iter("a")} <= {f"#{name}" for name in names}


@pytest.mark.parametrize("mesh", MESHES)
def test_the_page_needs_nothing_but_itself(mesh: dict[str, int]) -> None:
    _, text = planned(**mesh)
    root = tree(text)
    assert not {e.tag for e in root.iter()} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "use",
        "image",
    }
    for element in root.iter():
        assert not {"src", "srcset", "action", "onclick", "onload"} & set(element.attrib)
    assert not re.search(r"https?:|url\(|@import", text)
    (policy,) = [e for e in root.iter("meta") if e.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy.get("content"))


def test_every_picture_has_a_title_and_every_table_its_heads() -> None:
    root = tree(planned(dp=2, tp=2)[1])
    pictures = [e for e in root.iter("svg") if e.get("aria-hidden") != "true"]
    assert len(pictures) > 40
    for picture in pictures:
        assert picture.get("role") == "img"
        assert words(picture[0])
        assert picture[0].tag == "title"
    for table in root.iter("table"):
        columns = table.findall("thead/tr/th")
        assert all(th.get("scope") == "col" for th in columns)
        for row in table.findall("tbody/tr"):
            assert len(row) == len(columns)
            assert row[0].get("scope") == "row"
    assert root.get("lang") == "en"
    assert "prefers-color-scheme: dark" in words(root.find("head/style"))  # type: ignore[arg-type]


def test_the_page_says_what_the_plan_says() -> None:
    made, text = planned(pins=("blk.*.ffn_down.weight: S(1)@tp",), tp=2)
    said = words(tree(text))
    assert f"objective{time_text(made.certificate.objective_s)}" in said
    assert made.graph in said
    assert "blk.*.ffn_down.weight: S(1)@tp" in said
    for phase in made.phases:
        program = lower(model().graph, made, phase.phase.name)
        assert f"a call of {phase.phase.name}{time_text(phase.seconds)}" in said
        for rank in range(2):
            assert f"rank {rank}weights {bytes_text(peak(program, rank).parameters)}" in said
            assert bytes_text(peak(program, rank).peak) in said
        for move in moved(program):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", move.kind).lower()
            assert f"{move.count} {name}" in said


def test_intervals_are_drawn_where_they_lie() -> None:
    """5 and 4 of 9 heads: 40 and 32 of 72 rows."""
    root = tree(planned(pins=("blk.*.attn_q.weight: S(0)@tp",), tp=2)[1])
    section = next(s for s in root.iter("section") if s.get("aria-labelledby") == "held")
    row = next(r for r in section.iter("tr") if words(r).startswith("blk.*.attn_q.weight"))
    drawn = [(e.get("class"), float(str(e.get("x"))), float(str(e.get("width")))) for e in row.iter("rect")]
    held = [(name, x, w) for name, x, w in drawn if name != "track"]
    assert held == [("r0", 0.0, 55.556), ("r1", 55.556, 44.444)]
    assert [words(t) for t in row.iter("title")][1:] == [
        "rank 0: rows 0 to 40 of dim 0",
        "rank 1: rows 40 to 72 of dim 0",
    ]


def test_layers_alike_are_one_and_the_page_stays_small() -> None:
    _, few = planned(4, tp=4)
    _, many = planned(30, tp=4)
    assert "one of 30 alike" in many or "one of 29 alike" in many
    assert many.count("<title>layer ") >= 2 * 30, "every layer is a block of time"
    assert len(many) < len(few) * 1.5
    assert {*held_by_layers(many)} == {*held_by_layers(few)}
    assert len(held_by_layers(many)) < 2 * len(held_by_layers(few)), "only a few layers may be held otherwise"


def held_by_layers(page: str) -> list[str]:
    section = next(s for s in tree(page).iter("section") if s.get("aria-labelledby") == "held")
    return [words(e) for e in section.iter("th") if "blk." in words(e)]


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_steps_and_blocks_take_the_predicted_time(mesh: dict[str, int]) -> None:
    made, _ = planned(**mesh)
    for phase in made.phases:
        page = phase_page(made, model().graph, phase.phase.name, Machine())
        assert page.seconds == pytest.approx(sum(b.seconds for b in page.blocks))
        assert page.seconds <= phase.seconds * 1.00001
        assert page.moving == pytest.approx(sum(m.seconds for m in page.moves))
        assert page.layer_seconds == pytest.approx(sum(s.seconds for s in page.steps))
        assert [b.name for b in page.blocks if b.name.startswith("layer")] == ["layer 0", "layer 1"]
        ends = [b.at + b.seconds for b in page.blocks]
        assert [b.at for b in page.blocks[1:]] == pytest.approx(ends[:-1])


def test_a_graph_without_layers_is_one_block() -> None:
    graph = mlp(64, 256)
    made = unitp.plan(graph, Mesh(tp=2))
    said = words(tree(html.page(made, graph)))
    assert "all of it" in said
    assert "MatMul down" in said


def test_text_from_outside_is_escaped() -> None:
    made, _ = planned(tp=2)
    odd = msgspec.structs.replace(made, model="<b>&odd")
    text = html.page(odd, model().graph)
    assert "<b>&odd" not in text
    assert "<b>&odd on tp=2" in words(tree(text))


def test_a_plan_of_another_graph_has_no_page_and_a_bad_path_is_an_error(tmp_path: Path) -> None:
    made, text = planned(tp=2)
    with pytest.raises(PlanError, match="made for another graph"):
        html.page(made, model(4).graph)
    with pytest.raises(InputError, match="cannot write the page"):
        html.save(made, model().graph, tmp_path / "absent" / "plan.html")
    html.save(made, model().graph, tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text("utf-8") == text


# parts


def test_bars_of_layouts() -> None:
    mesh = Mesh(dp=2, tp=2)
    (whole,) = bars(Layout.replicated(2), (4, 4), mesh)
    assert [p.width for p in whole.pieces] == [100.0] * 4
    two = bars(Layout((Split(("dp",)), Split(("tp",), ((0, 3), (1, 4))))), (4, 4), mesh)
    assert [b.dim for b in two] == ["dim 0", "dim 1"]
    assert [(p.left, p.width) for p in two[1].pieces] == [(0.0, 75.0), (25.0, 75.0)] * 2
    (partial,) = bars(Layout((None,), ("tp",)), (4,), mesh)
    assert partial.partial
    (empty,) = bars(Layout((Split(("tp",), ((0, 4), (4, 4))),)), (4,), Mesh(tp=2))
    assert empty.pieces[1].text == "rank 1: nothing of dim 0"


def test_the_mesh_is_a_grid_with_a_line_between_neighbours() -> None:
    dots, lines = grid(Mesh(dp=2, tp=3))
    assert [(x, y) for _, x, y in dots] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert sum(axis == "tp" for axis, *_ in lines) == 4
    assert sum(axis == "dp" for axis, *_ in lines) == 3
    assert grid(Mesh()) == ([(0, 0.0, 0.0)], [])


@pytest.mark.parametrize(
    "seconds, text", [(0, "0"), (2.5, "2.50 s"), (0.7536, "754 ms"), (41.15e-6, "41.1 us"), (2e-7, "0.20 us")]
)
def test_times_have_three_figures(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize("count, text", [(0, "0 B"), (1023, "1023 B"), (2304, "2.25 KiB"), (280044800, "267 MiB")])
def test_bytes_have_three_figures(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_short_names() -> None:
    assert short("MatMul blk.*.ffn_down.weight") == "MatMul ffn_down"
    assert short("Softmax") == "Softmax"
