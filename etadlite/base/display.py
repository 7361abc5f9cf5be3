"""How wide text is on a terminal: letters of East Asia take two columns, combining marks none."""

from unicodedata import category, east_asian_width


def width(text: str) -> int:
    """Return the number of columns of a text in one line.

    An emoji that is joined from several is counted as these, which is how most terminals show it.
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if category(letter) in ("Mn", "Me", "Cf") else 1 + (east_asian_width(letter) in "WF")
        for letter in text
    )


def padded(text: str, columns: int, side: str = "<") -> str:
    """Return a text with spaces up to a number of columns; `side` is < for left or > for right."""
    space = " " * (columns - width(text))
    return text + space if side == "<" else space + text
