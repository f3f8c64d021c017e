"""The figures of two measures as one picture: a bar for the median of each subject, a line from the lowest to the highest.

The picture is SVG by hand, on white, and the same for the same figures, so that it can lie in the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from speed.figures import Spread

WIDTH, NAMES, NUMBERS = 860, 230, 60
"""Of the picture, and of the names to the left of the bars and the numbers to their right."""
ROW, TITLE, GAP = 20, 46, 24
OWN, PEER, LINE, LIMIT = "#2b6cb0", "#a0aec0", "#1a202c", "#c53030"


class Bar(NamedTuple):
    """A subject's figure; `own`: it is unitp's."""

    name: str
    figure: Spread
    own: bool


class Panel(NamedTuple):
    """Bars of one measure. `limit` is what cannot be exceeded, with its name; None if there is no such thing."""

    title: str
    bars: Sequence[Bar]
    limit: tuple[str, float] | None = None


def drawn(panels: Sequence[Panel]) -> str:
    """The picture of these panels, one below the other."""
    parts, top = [], 0
    for panel in panels:
        if panel.bars:
            parts += _panel(panel, top)
            top += TITLE + ROW * len(panel.bars) + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    most = max([bar.figure.high for bar in panel.bars] + ([panel.limit[1]] if panel.limit else []))
    scale = (WIDTH - NAMES - NUMBERS) / most
    parts = [_text(8, top + 18, panel.title, "font-weight='bold'")]
    first = top + TITLE
    for number, bar in enumerate(panel.bars):
        parts += _bar(bar, first + ROW * number, scale)
    if panel.limit:
        name, value = panel.limit
        at = _at(NAMES + value * scale)
        bottom = first + ROW * len(panel.bars)
        parts.append(
            f'<line x1="{at}" y1="{first - 4}" x2="{at}" y2="{bottom}" stroke="{LIMIT}" stroke-dasharray="4 3"/>'
        )
        parts.append(_text(float(at) - 4, first - 8, f"{name} {value:.1f}", f"text-anchor='end' fill='{LIMIT}'"))
    return parts


def _bar(bar: Bar, top: int, scale: float) -> list[str]:
    figure, middle = bar.figure, top + ROW / 2
    low, end, high = (_at(NAMES + value * scale) for value in (figure.low, figure.median, figure.high))
    colour = OWN if bar.own else PEER
    return [
        _text(NAMES - 8, middle + 4, bar.name, "text-anchor='end'"),
        f'<rect x="{NAMES}" y="{top + 3}" width="{_at(figure.median * scale)}" height="{ROW - 6}" fill="{colour}"/>',
        f'<line x1="{low}" y1="{_at(middle)}" x2="{high}" y2="{_at(middle)}" stroke="{LINE}"/>',
        _text(float(max(end, high, key=float)) + 5, middle + 4, f"{figure.median:.1f}"),
    ]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{_at(x)}" y="{_at(y)}" {more.replace(chr(39), chr(34))}>{escape(text)}</text>'.replace(" >", ">")


def _at(x: float) -> str:
    return f"{x:.1f}"
