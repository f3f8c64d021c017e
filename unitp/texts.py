"""Makes untrusted text harmless for each medium: names in models, plans and files may contain what a terminal, a page or
Python would execute.

Inside unitp a name stays as it is. It is made harmless at the output, by one function for each medium:

    a terminal (tables, lines, errors)   `shown`      by `cli.output`, and by `UnitpError` for whoever prints it
    generated text to a terminal         `tame`       it keeps what languages need (joiners, directions)
    a page, and the SVG in it            `shown`      by the environment of `report.html`, which escapes as well
    Python source                        `literal`    by `report.export`
    TOML                                 `toml_text`, `toml_key`   by `cost.machine_text`, and by `config` for lines to copy
    JSON                                 its own escapes, and `shown_json` if it goes to a terminal
"""

from __future__ import annotations

import re

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that may control a terminal (ESC, CSI, carriage return and others), and lone surrogates; not line feed and tab."""


def shown(text: str, keep: str = "") -> str:
    r"""Return `text` with only visible characters and those of `keep`. Others are escaped as in Python: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def cut(text: str, most: int = 60) -> str:
    """Return the beginning of a text that may be long, for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shortened(value: object) -> str:
    """Return a value in a message, as Python writes it, of 60 characters at most."""
    try:
        return cut(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, a thousand levels
        return f"a {type(value).__name__}"


def tame(text: str) -> str:
    r"""Return `text` without commands to a terminal: control characters except line feed and tab are written as `\x1b`."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def shown_json(text: str) -> str:
    r"""Return the same JSON with visible characters only: others are escaped (`\u001b`). They can occur only in strings."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else _units(c) for c in text)


def _units(character: str) -> str:
    """Return a character as JSON escapes: one UTF-16 unit or two."""
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i : i + 2].hex()}" for i in range(0, len(data), 2))


def literal(text: str) -> str:
    """Return a Python string literal for `text`, on one line, in double quotes unless `text` has such quotes."""
    made = repr(text)
    return made if "'" in text or '"' in text else f'"{made[1:-1]}"'


def toml_text(text: str) -> str:
    """Return a basic string of TOML for `text`, on one line, with visible characters only."""
    return f'"{"".join(c if c.isprintable() and c not in _TOML else _code(c) for c in text)}"'


def toml_key(name: str) -> str:
    """Return a TOML key for a name, quoted if needed."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


_TOML = '"\\'


def _code(character: str) -> str:
    number = ord(character)
    return f"\\{character}" if character in _TOML else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def as_unicode(text: str) -> str:
    r"""Return `text` as Unicode, which a file name need not be: bytes that are not UTF-8 are written as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()
