"""Every licence that is not known to be permissive is named; alternatives, exceptions and packages' own words are understood."""

from __future__ import annotations

from typing import Any

import pytest
from licences import UNKNOWN, UNNAMED, concern, rows, table


@pytest.mark.parametrize("licence,why", [
    ("MIT", ""),
    ("Apache-2.0 WITH LLVM-exception", ""),
    ("Apache-2.0 OR BSD-2-Clause", ""),
    ("LGPL-2.1-only OR MIT", ""),
    ("BSD License", ""),
    ("3-Clause BSD License", ""),
    ("MPL-2.0 AND MIT", "copyleft limited"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "copyleft limited"),
    ("MIT AND GPL-2.0-only", "copyleft"),
    ("GPL-2.0-only OR AGPL-3.0-only", "copyleft"),
    ("GPL-3.0-only WITH GCC-exception-3.1", "copyleft"),
    ("GPL-2.0+", "copyleft"),
    ("CC-BY-NC-4.0", "source-available"),
    ("GNU General Public License v3 (GPLv3)", UNKNOWN),
    ("LicenseRef-MPICH", UNKNOWN),
    ("MIT OR", UNKNOWN),
    ("see the file", UNKNOWN),
    ("", UNKNOWN),
])  # fmt: skip
def test_a_licence_that_is_not_permissive_says_why(licence: str, why: str) -> None:
    assert concern(licence) == why


def component(name: str, *licences: dict[str, Any]) -> dict[str, Any]:
    return {"bom-ref": f"{name}==1.0", "name": name, "version": "1.0", **({"licenses": licences} if licences else {})}


def test_the_table_has_each_package_once_with_its_environments_and_what_to_look_at() -> None:
    twice = component(
        "Twice_said", {"license": {"id": "MIT"}}, {"license": {"name": "License :: OSI Approved :: MIT License"}}
    )
    hidden = component(
        "hidden", {"license": {"id": "MIT"}}, {"license": {"name": "License :: OSI Approved :: GNU GPL"}}
    )
    silent, either = component("silent"), component("either", {"expression": "MIT OR GPL-2.0-only"})
    found = rows({
        "first": {"metadata": {"component": either}, "components": [twice, silent]},
        "second": {"metadata": {"component": hidden}, "components": [twice]},
    })  # fmt: skip
    assert found == [
        ("either", "1.0", "MIT OR GPL-2.0-only", "first", ""),
        ("hidden", "1.0", "GNU GPL; MIT", "second", UNKNOWN),
        ("silent", "1.0", "", "first", UNNAMED),
        ("twice-said", "1.0", "MIT", "first, second", ""),
    ]
    assert table(found).splitlines()[2] == "| either | 1.0 | MIT OR GPL-2.0-only | first |  |"
