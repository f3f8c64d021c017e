"""Sizes of memory as people write them: `8GiB` (powers of two), `80GB` (powers of ten), or a number of bytes.

Command line, settings, and machine files read sizes with `parse_bytes`; messages and tables write them with `format_bytes`.
"""

from __future__ import annotations

import re

from unitp.errors import InputError

UNITS = (
    {"B": 1}
    | {f"{p}B": 1000**n for n, p in enumerate("kMGT", 1)}
    | {f"{p}iB": 1024**n for n, p in enumerate("KMGT", 1)}
)
"""The number of bytes of each unit."""

WANTED = "a size such as 8GiB, 80GB or 500000000"


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that a size stands for: 2**33 for `"8GiB"`. Fractions of a byte are dropped.

    Raises InputError for a text that is not a number (with or without a unit), and for a size below one byte.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)", str(text).strip())
    units = {name.lower(): factor for name, factor in UNITS.items()}
    if match is None or (match[2] or "B").lower() not in units:
        raise InputError(f'"{text}" is not a size of memory', hint=f"Write {WANTED}.")
    found = (
        int(float(match[1]) * units[(match[2] or "B").lower()])
        if "." in match[1]
        else int(match[1]) * units[(match[2] or "B").lower()]
    )
    if found < 1:
        raise InputError(f'"{text}" is not a size of memory: it is below one byte', hint=f"Write {WANTED}.")
    return found


def format_bytes(count: float) -> str:
    """Return a number of bytes as text, with two decimals and the largest binary unit that fits: `7.45 GiB`, `12 bytes`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} bytes"
