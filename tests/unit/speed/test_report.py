"""A run as JSON and in the documents: what is shown is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from speed import report
from speed.figures import Figures, Key
from speed.machine import Machine, Taken
from speed.report import About, Result
from speed.subjects import LLAMA, TRANSFORMERS, Subject
from speed.turns import BESIDE, DECODE, PREFILL

DOCS = Path(__file__).parents[3] / "docs"
NUMPY, LLAMA_2, PEER = Subject("numpy", 2, transport="mpi"), Subject(LLAMA, threads=2), Subject(TRANSFORMERS)


def result(others: float = 0.01) -> Result:
    figures = Figures({
        Key(DECODE, LLAMA_2): [20.0, 10.0],
        Key(DECODE, NUMPY): [30.0, 15.0],
        Key(BESIDE, NUMPY): [20.0, 10.0],
        Key(PREFILL, NUMPY): [300.0, 310.0],
        Key("limit", Subject("kernel", 1)): [15.0, 14.0],
        Key("limit", Subject("kernel", 2)): [25.0, 24.0],
    })  # fmt: skip
    return Result(
        machine=Machine("EPYC avx2", 2, 23.0, "Linux 6", "3.11.7", {"numpy": "1.26.4"}, "2026-11-28"),
        model="smollm2-135m",
        model_bytes=500_000_000,
        rounds=2,
        taken=Taken(others, 0.01),
        about=(About(NUMPY, "0-1", True), About(LLAMA_2, "0-1", False)),
        figures=report.kept(figures),
        left_out={"torch mpi tp=2": "transport mpi needs mpich"},
    )


def test_what_is_kept_is_read_back():
    assert report.decoded(report.encoded(result())) == result()


def test_the_kept_figures_say_what_was_wanted_too():
    wanted = json.loads(report.encoded(result()))["wanted"]
    assert wanted[0]["what"] == "decode tp=2, best backend, over llama.cpp float32 2 threads"
    assert (wanted[0]["wanted"], wanted[0]["got"]["median"], wanted[0]["met"]) == (1.25, 1.5, True)


def test_a_row_has_the_median_the_spread_and_the_ratios():
    text = report.text(result())
    (row,) = [line for line in text.splitlines() if line.startswith("numpy mpi tp=2") and "1.50" in line]
    assert row.split() == ["numpy", "mpi", "tp=2", "2", "x", "1", "22.5", "15.0", "30.0", "1.50", "0.75", "same"]


def test_who_says_something_else_and_who_was_left_out_is_told():
    text = report.text(result())
    assert "other" in text
    assert "torch mpi tp=2: transport mpi needs mpich" in text


def test_figures_of_a_busy_machine_are_called_provisional():
    assert "provisional" not in report.text(result(0.02))
    assert (
        "others took 40% of the processors, and the measured processes 1%: these figures are provisional"
        in report.text(result(0.4))
    )


def test_pinning_is_told_once_where_it_is_the_same_for_all():
    assert "No process is bound to one core: all may run on CPUs 0-1." in report.text(result())
    assert "on CPUs" not in report.text(result()).replace("may run on CPUs", "")
    about = (About(NUMPY, "0", True), About(LLAMA_2, "0-1", None))
    text = report.text(msgspec.structs.replace(result(), about=about))
    assert "Processes may run on the CPUs that the tables list." in text
    assert "on CPUs" in text


def test_the_picture_has_a_bar_for_each_figure_and_the_limit():
    root = ElementTree.fromstring(report.picture(result()))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts.count("numpy mpi tp=2") == 2
    assert "22.5" in texts
    assert "two processes can read all float32 weights, times/s 49.0" in texts


def test_a_picture_of_nothing_is_a_picture():
    ElementTree.fromstring(report.picture(msgspec.structs.replace(result(), figures=(), about=())))


def test_figures_are_put_between_their_lines():
    document = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    written = report.into(document, result())
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert report.into(written, result()) == written


def test_a_document_without_a_place_for_figures_is_refused():
    with pytest.raises(ValueError, match="has no lines"):
        report.into("text", result())


def test_the_documents_show_what_was_kept():
    """`make bench DOCS=1` writes all three; nobody writes a figure by hand."""
    kept = report.decoded((DOCS / "speed.json").read_bytes())
    page = (DOCS / "speed.md").read_text("utf-8")
    assert report.into(page, kept) == page
    assert (DOCS / "speed.svg").read_text("utf-8") == report.picture(kept)
    assert (DOCS / "speed.json").read_bytes() == report.encoded(kept)
