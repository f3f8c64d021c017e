"""The doors through which every name goes: what is written for a medium means the same text there, and can be seen."""

from __future__ import annotations

import ast
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp import texts
from unitp.errors import GraphError
from unitp.frontends.builder import Builder


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


def test_names_that_are_no_unicode_are_refused_where_a_graph_gets_its_hash() -> None:
    b = Builder("g")
    with pytest.raises(GraphError, match="is not Unicode"):
        _ = b.graph(b.Relu(b.input("\udcff", "float32", (4,)))).hash
