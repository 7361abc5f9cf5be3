"""Labels in any script: fonts are chosen by their letters, else numbers stand for labels.

No test depends on the fonts of this machine: the list of fonts is replaced, and those that are
drawn with come with Matplotlib.
"""

import json
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry
from PIL import Image, ImageDraw

from etadlite.base.display import padded, width
from etadlite.base.tables import aligned
from etadlite.data.video import Video
from etadlite.runs.pictures import write_legend
from etadlite.stickfigures.dataset import write_video
from etadlite.viz import draw_timeline, fonts
from etadlite.viz.fonts import FontWarning, Pen, needs_shaping, readable
from etadlite.viz.style import pixels, plain, save
from etadlite.viz.timeline import annotated

STIX = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
ARROW = "\u2924"  # STIX has it, Matplotlib's own font has not
FACES = {  # name -> letters
    "Hanzi": "跳远羽毛球 0123",
    "Hanzi and more": "跳远羽毛球日本 0123",
    "Kana": "バドミントン",
}


@pytest.fixture
def machine(monkeypatch):
    """A machine with given fonts: name -> letters, or the path of a font file."""

    of_file = fonts._letters_of

    def have(faces):
        entries = []
        letters = {}
        for name, has in faces.items():
            path = str(has) if isinstance(has, Path) else f"/no/{name}.ttf"
            entries.append(FontEntry(fname=path, name=name))
            if not isinstance(has, Path):
                letters[path] = frozenset(map(ord, has))
        monkeypatch.setattr(fonts, "installed", lambda: entries)
        monkeypatch.setattr(fonts, "_letters_of", lambda path: letters.get(path) or of_file(path))
        for cached in (fonts._fonts, fonts._say_numbers, fonts._say_lacking):
            cached.cache_clear()

    yield have
    fonts._fonts.cache_clear()


def families_of(text):
    figure = Figure()
    shown = figure.text(0, 0, text)
    plain(figure)
    return shown.get_fontfamily()


def test_few_fonts_are_chosen_that_have_all_letters(machine):
    machine(FACES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert families_of("跳 jump") == ["DejaVu Sans", "Hanzi"]
        assert families_of("日本 跳") == ["DejaVu Sans", "Hanzi and more"]
        assert set(families_of("跳 バド")) == {"DejaVu Sans", "Hanzi", "Kana"}
        assert families_of("jump ± é λ Ж") == families_of("jump")  # Matplotlib's own has them
        assert readable(["跳远", "バ", "run"]) == {"跳远": "跳远", "バ": "バ", "run": "run"}


def test_a_label_without_a_font_is_numbered_and_said_once_with_the_font_to_install(machine):
    machine({"Kana": FACES["Kana"]})
    labels = ["跳远", "バド", "run", "🏊 swim", "लंबी"]
    with pytest.warns(FontWarning) as said:
        shown = [readable(labels) for _ in range(3)]
    assert shown[0] == shown[1] == shown[2]
    # By place in alphabetical order.
    assert shown[0] == {"run": "run", "लंबी": "#2", "バド": "バド", "跳远": "#4", "🏊 swim": "#5"}
    (warning,) = said
    text = str(warning.message)
    assert "3 labels" in text
    assert "#2 लंबी, #4 跳远, #5 🏊 swim" in text
    assert text.index("#2") < text.index("install ")
    for font in ("Noto Sans CJK", "fonts-noto-cjk", "Noto Sans Devanagari", "Symbola"):
        assert font in text


def test_scripts_that_join_letters_need_a_library_that_can(machine):
    machine({})
    assert [needs_shaping(text) for text in ("قفز", "קפיצה", "लंबी", "跳远", "é")] == [
        *(True, True, True, False, False),
    ]
    assert readable(["قفز"], shapes=True) == {"قفز": "قفز"}  # Matplotlib's font has the letters
    with pytest.warns(FontWarning, match=r"#1 قفز; install Matplotlib 3\.11 or later"):
        assert readable(["قفز"], shapes=False) == {"قفز": "#1"}


def segment(start, end, label):
    return {"segment": [start, end], "label": label, "score": 0.5}


def test_a_picture_without_fonts_shows_numbers_and_its_folder_has_the_legend(machine, tmp_path):
    machine({})
    rows = {"detected": [segment(0, 4, "跳远"), segment(5, 9, "run")]}
    none = np.empty((0, 1, 1, 3), np.uint8)

    def draw():
        figure = draw_timeline(none, 10.0, rows, title="视频 1")
        save(figure, tmp_path / "a.png")
        write_legend(["run", "跳远"], tmp_path)
        return figure

    with pytest.warns(FontWarning) as said:
        figure, _ = draw(), draw()
    # No flood: one on labels, one on the title, and Matplotlib has nothing to warn of.
    assert [warning.category for warning in said] == [FontWarning, FontWarning]
    assert [text.get_text().strip() for text in figure.axes[-1].texts] == ["#2 0.50", "run 0.50"]
    assert figure.get_suptitle() == "?? 1"
    assert json.loads((tmp_path / "labels.json").read_text()) == {"#2": "跳远"}


def test_no_legend_is_written_where_all_labels_can_be_read(tmp_path):
    write_legend(["run", "jump"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_letter_of_another_font_is_drawn(machine):
    machine({"STIXGeneral": STIX})

    def picture(text):
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.3, text, fontsize=30)
        return pixels(plain(figure))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as for a letter that is missing
        drawn = picture(f"a{ARROW}")
    machine({})
    with pytest.warns(FontWarning, match=r"has ⤤, so pictures show \?"):
        missing = picture(f"a{ARROW}")
    assert drawn.shape != missing.shape or np.abs(drawn.astype(int) - missing).mean() > 1


def test_pillow_takes_each_piece_from_the_font_that_has_it(machine):
    machine({"STIXGeneral": STIX})
    pen = Pen(20)
    pieces = pen.pieces(f"go {ARROW}{ARROW} on")
    assert [text for text, _ in pieces] == ["go ", f"{ARROW}{ARROW} ", "on"]
    assert [font.getname()[0] for _, font in pieces] == ["DejaVu Sans", "STIXGeneral"] * 1 + [
        "DejaVu Sans"
    ]
    assert pen.width(f"a{ARROW}") > pen.width(ARROW) > 5
    sheet = Image.new("RGB", (100, 30), "white")
    pen.write(ImageDraw.Draw(sheet), (2, 2), f"a{ARROW}")
    ink = np.flatnonzero((np.asarray(sheet) < 128).any(axis=(0, 2)))
    assert ink.min() >= 2
    assert ink.max() <= 2 + pen.width(f"a{ARROW}") + 1
    assert ink.max() > 2 + pen.width("a") + 5


def test_an_annotated_video_tells_more_classes_than_colours_apart(machine, tmp_path):
    machine({})
    clip = tmp_path / "grey.mp4"
    write_video(clip, np.full((8, 64, 64, 3), 99, np.uint8))
    labels = [f"class {i:02}" for i in range(17)] + ["跳远"]
    found = [segment(0, 1, labels[number]) for number in (0, 8, 16)] + [segment(0, 1, "跳远")]
    with pytest.warns(FontWarning, match="#18 跳远"):
        frames = [sheet for _, sheet in annotated(Video(clip), found, labels)]
    assert len(frames) == 8
    shown = np.asarray(frames[3]).astype(int)
    line = 2 * (13 // 2 + 4)
    bars = [shown[-4 - (4 - k) * line + 4 : -(3 - k) * line - 6 or None, 200:300] for k in range(3)]
    white = [(bar == 255).all(-1).mean() for bar in bars]
    assert white[0] == 0
    assert min(white[1:]) > 0.1
    smallest = min(bar.shape[0] for bar in bars)
    assert np.abs(bars[1][:smallest] - bars[2][:smallest]).mean() > 10


# Widths on a terminal


def test_columns_are_aligned_by_display_width():
    rows = [["class", "mAP"], ["跳远", "1.0"], ["e\u0301le\u0300ve", "22.5"], ["🏊", "3"]]
    lines = aligned(rows).splitlines()
    assert lines == [
        "class   mAP",
        "-" * 11,
        "跳远    1.0",
        "e\u0301le\u0300ve  22.5",
        "🏊        3",
    ]
    assert [width(line) for line in lines] == [11] * 5
    assert (padded("跳", 4), padded("跳", 4, ">")) == ("跳  ", "  跳")


COMMON = st.characters(whitelist_categories=("L", "Mn", "Po"), max_codepoint=0xFFFF)


def test_widths_are_those_of_the_library_for_them():
    wcwidth = pytest.importorskip("wcwidth", reason="wcwidth is not installed")
    texts = [
        "jump",
        "跳远 1",
        "バドミントン",
        "점프",
        "قفز طويل",
        "e\u0301",
        "🏊🎾",
        "ﾊﾞ",
        "naïve",
    ]
    assert [width(text) for text in texts] == [wcwidth.wcswidth(text) for text in texts]


@given(st.text(COMMON), st.text(COMMON))
def test_widths_add_up(a, b):
    assert width(a + b) == width(a) + width(b) >= 0
