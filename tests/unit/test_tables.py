"""Tables of files as structs: every fault is found, and each is named with its place, what was seen and what it must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import pytest
from msgspec import Meta, field

from unitp.errors import InputError
from unitp.tables import MOST_FAULTS, Fault, Must, Table, but, read


def even(value: int) -> str:
    return "" if value % 2 == 0 else but("an even number", value)


class Word:
    """A type that msgspec does not know."""

    def __init__(self, value: object) -> None:
        if value != "word":
            raise InputError("it is another word")


Even = Annotated[int, Meta(ge=0), Must("a whole number that is not negative", even)]


class Inner(Table, frozen=True, kw_only=True):
    number: Even
    word: Annotated[Word, Must('the text "word"')] | None = None


class Outer(Table, frozen=True, kw_only=True):
    retired: ClassVar[Mapping[str, str]] = {"old": "is not read any more"}

    inner: Inner
    text: str = ""
    one_or_many: Annotated[Inner | list[Inner], Must("a table or a list of tables")] | None = None
    by_name: dict[Annotated[str, Must("a name", lambda name: "is too short" if len(name) < 2 else "")], Even] = field(
        default_factory=dict
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[Fault]:
        if "text" in given and sound.get("by_name"):
            yield "text", f"stands beside {sound['by_name']}"


def faults(table: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(table, Outer, "f.toml", "an outer file", hint="a hint")
    head, *lines = caught.value.message.splitlines()
    assert (head, caught.value.hint) == ("f.toml is not an outer file:", "a hint")
    return [line.removeprefix("  ") for line in lines]


def test_a_table_without_faults_is_a_struct() -> None:
    found = read({"inner": {"number": 2, "word": "word"}, "by_name": {"ab": 4}}, Outer, "f.toml", "an outer file")
    assert (found.inner.number, found.by_name, found.text, found.one_or_many) == (2, {"ab": 4}, "", None)
    assert isinstance(found.inner.word, Word)
    many = read({"inner": {"number": 2}, "one_or_many": [{"number": 4}]}, Outer, "f.toml", "an outer file")
    assert many.one_or_many == [Inner(number=4)]


def test_every_fault_is_told_in_the_order_of_the_file() -> None:
    found = faults(
        {
            "text": 3,
            "txet": "",
            "old": 1,
            "inner": {"word": "other", "number": -1},
            "one_or_many": [{"number": True}, {}, 5],
            "by_name": {"a": 2, "ab": 3, "two words": {}, "cd": 8, "ef": 2.0},
        }
    )
    assert found == [
        "text must be a text in quotes, but it is 3.",
        'txet is not a known entry. Did you mean "text"?',
        "old is not read any more.",
        'inner.word must be the text "word", but it is "other".',
        "inner.number must be a whole number that is not negative, but it is -1.",
        "one_or_many[0].number must be a whole number that is not negative, but it is true.",
        "one_or_many[1].number is missing; it must be a whole number that is not negative.",
        "one_or_many[2] must be a table, but it is 5.",
        "by_name.a is too short.",
        "by_name.ab must be an even number, but it is 3.",
        'by_name."two words" must be a whole number that is not negative, but it is a table.',
        "by_name.ef must be a whole number that is not negative, but it is 2.0.",
        "text stands beside {'ab': None, 'two words': None, 'cd': 8, 'ef': None}.",
    ]


@pytest.mark.parametrize("value", [3, "text", True, 1.5, []])
def test_what_is_no_table_is_told(value: object) -> None:
    (found,) = faults({"inner": value})
    assert found.startswith("inner must be a table, but it is ")
    if value != []:
        (found,) = faults({"inner": {"number": 0}, "one_or_many": value})
        assert found.startswith("one_or_many must be a table or a list of tables, but it is ")


def test_no_more_faults_are_told_than_a_person_reads() -> None:
    found = faults({"inner": {"number": 0}, "by_name": {f"name{i}": 1 for i in range(1000)}})
    assert len(found) == MOST_FAULTS + 1
    assert found[-1] == f"There may be more than these {MOST_FAULTS} faults."


def test_long_and_invisible_parts_of_a_file_are_told_in_short() -> None:
    (found,) = faults({"inner": {"number": 0}, "x" * 1000: 1})
    assert len(found) < 150
    (found,) = faults({"inner": {"number": "y" * 1000}})
    assert len(found) < 150
    (found,) = faults({"inner": {"number": 0}, "\x1b[2J": 1})
    assert "\x1b" not in found
