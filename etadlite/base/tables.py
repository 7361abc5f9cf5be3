"""Tables for a terminal."""

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
