"""What the packages of an environment say of their licences, and which of these want a person's look.

A licence is judged by the category that ScanCode's LicenseDB gives it (the library license-expression has it). Whatever is not
known to be permissive is named: copyleft, words that no list knows, nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import license_expression
from packaging.utils import canonicalize_name

FREE = ("Permissive", "Public Domain")
UNNAMED = "names no licence"
UNKNOWN = "not known"
CLASSIFIER = "License :: OSI Approved :: "
SPELLED = {
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
"""How packages spell licences that do not use SPDX's names: a licence of the same category."""


class Row(NamedTuple):
    """A package, what it says its licence is, the environments that it is in, and why to look at it (nothing: no need)."""

    package: str
    version: str
    licence: str
    environments: str
    look: str


def concern(licence: str) -> str:
    """Why a licence wants a look: its category where that is not permissive, or that nobody knows it; else nothing."""
    try:
        parsed = _licensing().parse(SPELLED.get(licence.lower(), licence), validate=True)
    except license_expression.ExpressionError:
        return UNKNOWN
    return UNKNOWN if parsed is None else _concern(parsed)


def _concern(parsed: Any) -> str:
    """Of alternatives the best one counts, of what holds together the worst. An exception allows more, never less."""
    if isinstance(parsed, license_expression.LicenseWithExceptionSymbol):
        return _concern(parsed.license_symbol)
    if isinstance(parsed, license_expression.LicenseSymbol):
        category = _categories().get(parsed.key, UNKNOWN)
        return "" if category in FREE else category.lower()
    parts = {_concern(part) for part in parsed.args}
    if isinstance(parsed, _licensing().OR) and "" in parts:
        return ""
    return ", ".join(sorted(parts - {""}))


@cache
def _licensing() -> license_expression.Licensing:
    return license_expression.get_spdx_licensing()


@cache
def _categories() -> dict[str, str]:
    """The category of each licence by the names that SPDX has and had for it."""
    found = {}
    for entry in license_expression.get_license_index():
        for key in (entry.get("spdx_license_key"), *entry.get("other_spdx_license_keys", ())):
            found[key] = entry["category"]
    return found


def named(component: Mapping[str, Any]) -> list[str]:
    """The licences of a CycloneDX component: SPDX expressions and words. What is there in both is listed once."""
    entries = component.get("licenses", ())
    names = {
        one.get("expression") or one["license"].get("id") or one["license"]["name"].removeprefix(CLASSIFIER)
        for one in entries
    }
    return sorted(name for name in names if SPELLED.get(name.lower()) not in names)


def rows(documents: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Every package of these CycloneDX documents, which are given by the name of their environment."""
    places: dict[str, list[str]] = {}
    components: dict[str, Mapping[str, Any]] = {}
    for environment, document in documents.items():
        for one in (document["metadata"]["component"], *document["components"]):
            components[one["bom-ref"]] = one
            places.setdefault(one["bom-ref"], []).append(environment)
    found = []
    for reference, one in components.items():
        names = named(one)
        concerns = {concern(name) for name in names} if names else {UNNAMED}
        look = ", ".join(sorted(concerns - {""}))
        package = canonicalize_name(one["name"])
        found.append(Row(package, one["version"], "; ".join(names), ", ".join(places[reference]), look))
    return sorted(found)


def table(found: list[Row]) -> str:
    """These rows in Markdown."""
    lines = [f"| {' | '.join(Row._fields)} |", "|---" * len(Row._fields) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in found)]) + "\n"
