"""Tables as plain text and as Markdown: text to the left, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Rows of texts under a header. The columns in `right` are numbers."""

    def __init__(self, header: Sequence[str], right: Sequence[int] = ()) -> None:
        self.header, self.right = [*header], {*right}
        self.rows: list[list[str]] = []

    def add(self, *cells: str) -> None:
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells under {len(self.header)} columns")
        self.rows.append([*cells])

    def text(self) -> str:
        """Columns of the width that they need."""
        columns = self._columns()
        widths = [max(map(len, column)) for _, column in columns]
        lines = []
        for cells in zip(*(column for _, column in columns), strict=True):
            line = [
                cell.rjust(width) if at in self.right else cell.ljust(width)
                for cell, width, (at, _) in zip(cells, widths, columns, strict=True)
            ]
            lines.append("  ".join(line).rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        columns = self._columns()
        first, *others = zip(*(column for _, column in columns), strict=True)
        rules = ["---:" if at in self.right else "---" for at, _ in columns]
        return "\n".join("| " + " | ".join(row) + " |" for row in (first, rules, *others))

    def _columns(self) -> list[tuple[int, list[str]]]:
        """Header and cells of each column with its number, but for those in which no row has anything."""
        columns = enumerate(zip(self.header, *self.rows, strict=True))
        return [(at, [*column]) for at, column in columns if any(column[1:])]
