"""Letters of any script in pictures: which fonts of this machine have them, and what to do if none.

Matplotlib's own font has Latin, Greek, Cyrillic and some more. Other letters are taken from fonts
that are installed. A label whose letters no font has is written as a number, and a warning says
once what the numbers mean and which font to install.
"""

import unicodedata
import warnings
from collections.abc import Collection, Iterable
from functools import cache
from itertools import groupby

import matplotlib
from matplotlib import font_manager
from matplotlib.text import Text
from PIL import ImageDraw, ImageFont, features

OWN = "DejaVu Sans"  # comes with Matplotlib
# Fonts to ask for: the first word of a letter's name in Unicode -> the font, and Debian's package.
CJK = ("Noto Sans CJK", "fonts-noto-cjk")
ASKED = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH"), CJK)
EMOJI = ("Symbola", "fonts-symbola")


class FontWarning(UserWarning):
    """No font of this machine has some letters; pictures show numbers or question marks instead."""


def readable(labels: Iterable[str], *, shapes: bool | None = None) -> dict[str, str]:
    """Return how pictures write each label: itself, or a number such as "#2" if no font has it.

    The number is the label's place among all `labels` in alphabetical order, from 1. `shapes` says
    whether letters are joined and ordered as their script asks, which Matplotlib does from 3.11 on;
    without it, labels in such scripts are numbered.
    """
    names = sorted(set(labels))
    able = _matplotlib_shapes() if shapes is None else shapes
    lacking = _lacking("".join(names))
    shown = {
        name: f"#{number}" if lacking & set(name) or (not able and needs_shaping(name)) else name
        for number, name in enumerate(names, 1)
    }
    numbered = {number: name for name, number in shown.items() if name != number}
    if numbered:
        _say_numbers(tuple(numbered.items()), able or bool(lacking))
    return shown


def use_fonts(texts: Iterable[Text]) -> None:
    """Let each text of a figure use fonts that have its letters; those that none has become "?"."""
    for text in texts:
        content = text.get_text()
        chosen, lacking = _fonts(_foreign(content))
        if chosen:
            text.set_fontfamily([OWN, *(font.name for font in chosen)])
        if lacking:
            _say_lacking("".join(sorted(lacking)))
            text.set_text("".join("?" if c in lacking else c for c in content))


def needs_shaping(text: str) -> bool:
    """Return True if letters are joined, reordered or written from the right, as in Arabic."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) == "Mc"
        for letter in text
    )


def readable_by_pillow(labels: Iterable[str]) -> dict[str, str]:
    """Return how Pillow writes each label, see `readable`."""
    return readable(labels, shapes=bool(features.check("raqm")))


class Pen:
    """Writes text in any script into Pillow's pictures; Pillow itself uses one font at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.plain = ImageFont.load_default(size=size)
        self.opened: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}

    def pieces(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        """Return the text in pieces, each with the font that has its letters."""
        if text.isascii():
            return [(text, self.plain)]
        fonts = [_own(), *_fonts(_foreign(text))[0]]
        covers = [_letters(font) for font in fonts]

        def font_of(letter: str) -> int:
            return next((n for n, cover in enumerate(covers) if ord(letter) in cover), 0)

        # A space or a mark belongs to the letter before it.
        numbers, last = [], 0
        for letter in text:
            joins = letter.isspace() or unicodedata.category(letter) in ("Mn", "Mc", "Cf")
            last = last if joins and ord(letter) in covers[last] else font_of(letter)
            numbers.append(last)
        runs = groupby(zip(numbers, text, strict=True), key=lambda pair: pair[0])
        return [("".join(c for _, c in run), self._opened(fonts[n])) for n, run in runs]

    def _opened(self, font: font_manager.FontEntry) -> ImageFont.FreeTypeFont:
        key = font.fname, getattr(font, "index", 0)  # a file can hold several fonts
        if key not in self.opened:
            self.opened[key] = ImageFont.truetype(key[0], self.size, index=key[1])
        return self.opened[key]

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return sum(font.getlength(piece) for piece, font in self.pieces(text))

    def write(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
        """Write a text in black; `place` is the left end of its line's upper border."""
        left, top = place
        base = top + self.plain.getmetrics()[0]
        for piece, font in self.pieces(text):
            draw.text((left, base), piece, fill="black", font=font, anchor="ls")
            left += font.getlength(piece)


def _matplotlib_shapes() -> bool:
    return tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11)


def installed() -> list[font_manager.FontEntry]:
    """Return the upright fonts of this machine, one of each family, the likeliest first."""
    upright = [
        font
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and not font.name.startswith(("Last Resort", OWN))
    ]
    plain = sorted(upright, key=lambda font: (abs(int(font.weight) - 400), font.name))
    one_each = {font.name: font for font in reversed(plain)}.values()
    return sorted(
        one_each,
        key=lambda font: (
            not font.name.startswith("Noto Sans"),
            any(word in font.name for word in ("Mono", "Serif", "Bold")),
            not font.name.endswith(" SC"),  # the simplified forms, for Chinese alone
            font.name,
        ),
    )


def _own() -> font_manager.FontEntry:
    path = font_manager.findfont(OWN)
    return font_manager.FontEntry(fname=str(path), name=OWN)


@cache
def _letters_of(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # broken, or of a form that cannot be drawn in any size
        return frozenset()


def _letters(font: font_manager.FontEntry) -> frozenset[int]:
    return _letters_of(font.fname)


def _foreign(text: str) -> frozenset[str]:
    """Return the letters that Matplotlib's own font lacks, without combining marks."""
    if text.isascii():
        return frozenset()
    own = _letters(_own())
    return frozenset(
        letter
        for letter in text
        if ord(letter) not in own and unicodedata.category(letter) not in ("Cc", "Cf", "Mn")
    )


@cache
def _fonts(
    letters: frozenset[str],
) -> tuple[tuple[font_manager.FontEntry, ...], frozenset[str]]:
    """Return fonts that have the letters together, few of them, and the letters that none has."""
    chosen: list[font_manager.FontEntry] = []
    rest = set(letters)
    fonts = installed() if rest else []
    while rest:
        most: set[str] = set()
        for font in fonts:
            found = {letter for letter in rest if ord(letter) in _letters(font)}
            if len(found) > len(most):
                most, best = found, font
            if found == rest:
                break
        if not most:
            break
        chosen.append(best)
        rest -= most
    return tuple(chosen), frozenset(rest)


def _lacking(text: str) -> frozenset[str]:
    return _fonts(_foreign(text))[1]


def _advice(letters: Collection[str]) -> str:
    """Say which fonts to install for letters."""
    asked = {}
    for letter in letters:
        script = unicodedata.name(letter, "UNNAMED").split()[0]
        other = EMOJI if unicodedata.category(letter) in ("So", "Sk") else None
        found = ASKED.get(script) or other or (f"Noto Sans {script.title()}", "fonts-noto-core")
        asked[found] = None
    return "install " + " and ".join(f"{font} (Debian, Ubuntu: {deb})" for font, deb in asked)


@cache
def _say_numbers(numbered: tuple[tuple[str, str], ...], lacking: bool) -> None:
    legend = ", ".join(f"{number} {name}" for number, name in numbered)
    names = "".join(name for _, name in numbered)
    remedy = _advice(sorted(_lacking(names))) if lacking else "install Matplotlib 3.11 or later"
    warnings.warn(
        f"no font of this machine can write {len(numbered)} labels, so pictures number them:"
        f" {legend}; {remedy}",
        FontWarning,
        stacklevel=4,
    )


@cache
def _say_lacking(letters: str) -> None:
    warnings.warn(
        f"no font of this machine has {letters}, so pictures show ?; {_advice(letters)}",
        FontWarning,
        stacklevel=4,
    )
