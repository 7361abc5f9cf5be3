"""Tables for terminals and spreadsheets."""

import re
from collections.abc import Sequence

from etadlite.base.errors import printable


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return rows as a table with a line under the first; its first `left` columns align left."""
    from etadlite.base.display import padded, width  # only tables need it

    rows = [[printable(cell) for cell in cells] for cells in rows]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    sides = "<" * left + ">" * (len(widths) - left)
    lines = ["  ".join(map(padded, cells, widths, sides)).rstrip() for cells in rows]
    return "\n".join([lines[0], "-" * max(map(width, lines)), *lines[1:]])


def spreadsheet_safe(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: one gets a ' before it."""
    return re.sub(r"^(?=[=+\-@\t\r])", "'", text)


def from_spreadsheet(text: str) -> str:
    """Return what was written by `spreadsheet_safe`."""
    return re.sub(r"^'(?=[=+\-@\t\r])", "", text)
