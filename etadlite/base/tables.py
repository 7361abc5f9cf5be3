"""Tables for terminals and spreadsheets."""

import re
from collections.abc import Sequence

from etadlite.base.errors import printable


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return rows as a table with a line under the first; its first `left` columns align left."""
    rows = [[printable(cell) for cell in cells] for cells in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def spreadsheet_safe(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: one gets a ' before it."""
    return re.sub(r"^(?=[=+\-@\t\r])", "'", text)


def from_spreadsheet(text: str) -> str:
    """Return what was written by `spreadsheet_safe`."""
    return re.sub(r"^'(?=[=+\-@\t\r])", "", text)
