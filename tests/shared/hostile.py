"""Names that a terminal, a page, a shell, Python or a file system would obey, were they not text."""

from __future__ import annotations

import re

NAMES = {
    "markup": "[/x][bold]b[/bold][link=file:///etc]l[/link]:smile:",
    "colours": "\x1b[31mred\x1b[2J\x1b]0;title\x07\x1b]52;c;AAAA\x1b\\",
    "eight bits": "\x9b31m\x9d0;t\x9c\x85",
    "erased": "good\rbad\x08\x08\x7f\x0b\x0c\x00",
    "lines": "a\nError: forged\r\nb\u2028c\u2029d",
    "turned": "\u202etxt.exe\u202c\u2066\u2069\u200b\ufeff\u00ad\U000e0041",
    "page": "</title></code></svg><script>alert('x')</script><!--",
    "attribute": "\" onload=\"x\" ' onclick='y' />&lt;&#60;]]>",
    "python": "\"\"\" + __import__('os').system('touch ran') + ''' \\",
    "template": "{{ 7*7 }}{% include 'x' %}{# c #}{0.__class__}%s%n${HOME}",
    "shell": "$(touch ran)`touch ran`; touch ran & | > ran",
    "path": "../../../../tmp/ran/..\\..\\ran",
    "sheet": '=1+1,"@x"\t|',
    "odd": "e\u0301\U0001f9d1\u200d\U0001f680 \u3000\u05d0\ufffe",
}
EVERYTHING = " ".join(NAMES.values())

WORD = EVERYTHING.replace("\0", "")
"""What an argument of a command line can be."""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What rich itself writes to a terminal for a style."""

SPINNER = re.compile(r"\x1b\[(\?25[lh]|1A|2K)|\r")
"""What rich writes for something that turns while one waits."""


def harmless(text: str) -> bool:
    """Whether a terminal shows all of `text` and obeys nothing but the colours of the program itself."""
    return all(c.isprintable() or c == "\n" for c in COLOURS.sub("", text))


def tagged(what: str) -> str:
    """A name with everything in it, and what it is the name of."""
    return f"{EVERYTHING} {what}"
