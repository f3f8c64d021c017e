"""Tables of a TOML file as structs of msgspec, with every fault of the file found before any is reported.

    class Link(Table):
        latency_s: Annotated[float, Meta(ge=0), Must("a number of seconds that is not negative")]

    read({"latency_s": -1}, Link, "a.toml", "a machine file")

    a.toml is not a machine file:
      latency_s must be a number of seconds that is not negative, but it is -1.

msgspec knows types and bounds, but stops at the first fault. So the tables are walked here, and msgspec checks each value by
itself. A file without faults is then converted as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from unitp.errors import InputError, did_you_mean
from unitp.texts import cut, toml_key

MOST_FAULTS = 50
"""Faults of a file that are reported at once."""

T = TypeVar("T", bound="Table")
Fault = tuple[str, str]
"""The place of an entry, and what is said of it: `("ranks[0]", "is missing")`."""


class Must(NamedTuple):
    """Says what an annotated value must `be`, as messages do: "a positive number".

    also   what msgspec cannot check of a value of the right type. It returns what must be said of the entry, or "".
    """

    be: str
    also: Callable[[Any], str] | None = None


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a file. Its entries are the fields of a subclass.

    retired   entries that older files have, and why they are not read any more
    """

    retired: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def faults(cls, given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield the faults between entries, each at its place in this table.

        given   the table as it is in the file
        sound   its entries without those that have a fault: tables lack such an entry, and in a `dict` or a list it is None
        """
        yield from ()


class Walk:
    """Collects the `faults` of a table and its inner tables, `MOST_FAULTS` at most: then it is `cut_short`."""

    def __init__(self, table: Mapping[str, Any], kind: type[Table]) -> None:
        self.faults: list[str] = []
        self.cut_short = False
        try:
            self._table(table, kind, "")
        except _EnoughError:
            self.cut_short = True

    def _fault(self, place: str, says: str) -> None:
        """Record what must be said of the entry at this place, as a sentence."""
        self.faults.append(f"{place} {says}{'' if says.endswith(('.', '?')) else '.'}")
        if len(self.faults) >= MOST_FAULTS:
            raise _EnoughError

    def _value(self, value: Any, kind: Any, place: str) -> Any:
        """Return a value without its faulty parts, or None if it has a fault itself."""
        kinds, must = _kinds(kind)
        container = next((one for one in kinds if isinstance(value, _plain(one))), None)
        try:
            found = msgspec.convert(value, kind, dec_hook=_made) if container is None else value
        except (msgspec.ValidationError, InputError):
            return self._fault(place, but(must.be, value))
        if must.also is not None and (says := must.also(found)):
            return self._fault(place, says)
        return found if container is None else self._container(value, container, place)

    def _container(self, value: Any, kind: Any, place: str) -> Any:
        """Return a table or a list, with its sound parts."""
        if isinstance(value, list):
            (inner,) = get_args(kind)
            return [self._value(item, inner, f"{place}[{number}]") for number, item in enumerate(value)]
        if isinstance(kind, type) and issubclass(kind, Table):
            return self._table(value, kind, f"{place}.")
        of_keys, of_values = get_args(kind)
        found = {}
        for key, inner in value.items():
            at = f"{place}.{_key(key)}"
            known = self._value(key, of_keys, at) is not None
            sound = self._value(inner, of_values, at)
            if known:
                found[key] = sound
        return found

    def _table(self, table: Mapping[str, Any], kind: type[Table], place: str) -> dict[str, Any]:
        """Return the sound entries of a table. `place` is what stands before the key of an entry."""
        fields, sound = _entries(kind), {}
        for key, value in table.items():
            at = f"{place}{_key(key)}"
            if key in kind.retired:
                self._fault(at, kind.retired[key])
            elif key not in fields:
                self._fault(at, f"is not a known entry. {did_you_mean(key, fields)}")
            elif (found := self._value(value, fields[key].type, at)) is not None:
                sound[key] = found
        for key, field in fields.items():
            if field.required and key not in table:
                self._fault(f"{place}{key}", f"is missing; it must be {_kinds(field.type)[1].be}")
        for at, says in kind.faults(table, sound):
            self._fault(f"{place}{at}", says)
        return sound


def read(table: Mapping[str, Any], kind: type[T], where: object, what: str, *, hint: str = "") -> T:
    """Return a table of a file as a struct. Raises InputError that lists the faults of `where`, which is not `what`."""
    walk = Walk(table, kind)
    if walk.faults:
        more = [f"There may be more than these {MOST_FAULTS} faults."] if walk.cut_short else []
        raise InputError("\n  ".join([f"{where} is not {what}:", *walk.faults, *more]), hint=hint)
    return msgspec.convert(table, kind, dec_hook=_made)


def but(wanted: str, value: object) -> str:
    """Return what is said of an entry that has another value: "must be a text, but it is 3"."""
    return f"must be {wanted}, but it is {_shown(value)}"


class _EnoughError(Exception):
    """A file has as many faults as are reported at once."""


class _Leaf:
    """Stands for values that msgspec checks: no value is of this type."""


@cache
def _kinds(kind: Any) -> tuple[list[Any], Must]:
    """Return the types that a value may have, without None, and what must be said of any other value."""
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        for note in notes:
            if isinstance(note, Must):
                return _arms(kind), note
    arms = _arms(kind)
    if get_origin(arms[0]) is Annotated:
        return _kinds(arms[0])
    plain = _plain(arms[0])
    return arms, Must("a table" if plain is dict else "a list" if plain is list else "a text in quotes")


def _arms(kind: Any) -> list[Any]:
    """Return the types of a union, without None."""
    return [arm for arm in get_args(kind) if arm is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]


@cache
def _plain(kind: Any) -> type:
    """Return the type that a container has in a file, or `_Leaf`."""
    if isinstance(kind, type) and issubclass(kind, Table):
        return dict
    origin = get_origin(kind)
    return origin if origin in (dict, list) else _Leaf


@cache
def _entries(kind: type[Table]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(kind)}


def _made(kind: Callable[[object], Any], value: object) -> Any:
    """Make a value of a type that is not msgspec's own: its constructor raises InputError or ValueError."""
    return kind(value)


def _key(key: str) -> str:
    return cut(toml_key(key))


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{cut(value)}"'
        case dict():
            return "a table"
        case _:
            return cut(str(value))
