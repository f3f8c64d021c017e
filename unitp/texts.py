"""Words of strangers, as each medium takes them: names in models, plans and files may hold whatever a terminal, a page or
Python would obey.

A name is kept as it is everywhere inside; it is made harmless where it leaves, by the one door of its medium:

    a terminal (tables, lines, errors)   `shown`      by `cli.output`, and by `UnitpError` for whoever prints it
    generated text to a terminal         `tame`       it keeps what languages need (joiners, directions)
    a page, and the SVG in it            `shown`      by the environment of `report.html`, which escapes as well
    Python source                        `literal`    by `report.export`
    TOML                                 `toml_text`, `toml_key`   by `cost.machine_text`, and by `config` for lines to copy
    JSON                                 its own escapes, and `shown_json` where it goes to a terminal
"""

from __future__ import annotations

import re

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal may take for a command: ESC, CSI and the like, a carriage return; and halves of characters. Not line feed and tab."""


def shown(text: str, keep: str = "") -> str:
    r"""`text` in characters that can be seen, and those of `keep`; others as Python writes them: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def cut(text: str, most: int = 60) -> str:
    """The beginning of a text that may be long, for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shortened(value: object) -> str:
    """A value in a message, as Python writes it, of 60 characters at most."""
    try:
        return cut(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, a thousand levels
        return f"a {type(value).__name__}"


def tame(text: str) -> str:
    r"""`text` without commands to a terminal: control characters other than line feed and tab are written as `\x1b`."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def shown_json(text: str) -> str:
    r"""The same JSON in characters that can be seen: others are escaped (`\u001b`), which only strings can hold."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else _units(c) for c in text)


def _units(character: str) -> str:
    """A character as JSON escapes: one UTF-16 unit or two."""
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i : i + 2].hex()}" for i in range(0, len(data), 2))


def literal(text: str) -> str:
    """A string literal of Python that means `text`, on one line, in double quotes where it has no quotes itself."""
    made = repr(text)
    return made if "'" in text or '"' in text else f'"{made[1:-1]}"'


def toml_text(text: str) -> str:
    """A basic string of TOML that means `text`, on one line, in characters that can be seen."""
    return f'"{"".join(c if c.isprintable() and c not in _TOML else _code(c) for c in text)}"'


def toml_key(name: str) -> str:
    """A key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


_TOML = '"\\'


def _code(character: str) -> str:
    number = ord(character)
    return f"\\{character}" if character in _TOML else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def as_unicode(text: str) -> str:
    r"""`text` as Unicode, which a file name need not be: bytes that are none are written as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()
