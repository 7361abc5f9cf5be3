"""The report of a run as a page: whole in itself, true, and safe whatever names contain."""

import io
import json
import shlex
import shutil
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from etadlite.evaluation.diagnosis import even_edges
from etadlite.presets import preset
from etadlite.runs.page import command_of, write_page
from etadlite.training.report import read_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page: its tags with attributes, its texts by tag; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))


@pytest.fixture(scope="module")
def page(trained):
    return Page((trained / "report.html").read_text(encoding="utf-8"))


def test_a_page_holds_its_pictures_and_asks_for_nothing_else(page):
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    sources = [value for _, found in page.tags for key, value in found.items() if key == "src"]
    kind = "data:image/png;base64,"
    assert len(sources) == 3  # a timeline, the curves, the errors
    for source in sources:
        assert source.startswith(kind)
        assert Image.open(io.BytesIO(b64decode(source.removeprefix(kind)))).width > 800
    assert all(found["alt"] for tag, found in page.tags if tag == "img")
    assert not any(key in ("href", "onload") for _, found in page.tags for key in found)
    (style,) = [text for tag, text in page.texts if tag == "style"]
    assert "url(" not in style
    assert "@import" not in style


def test_a_page_says_what_the_run_reached_and_how_to_repeat_it(page, trained, tiny):
    report = read_report(trained)
    cells = [text for tag, text in page.texts if tag == "td"]
    assert cells[cells.index("average mAP") + 1] == f"{100 * report.average:.1f} %"
    heads = [text for tag, text in page.texts if tag == "h2"]
    assert heads == [
        *("Repeat it", "Detections in test videos", "Training", "Errors", "Settings"),
    ]
    command, errors = (text for tag, text in page.texts if tag == "pre")
    verb = shlex.split(command)
    assert verb[:3] == ["etadlite", "train", "e2e_stickfigures"]
    again = preset(verb[2], verb[3:])
    assert again.model_dump(mode="json") == json.loads((trained / "config.json").read_text())
    assert "localisation" in errors
    # What differs from the preset comes first, all settings after it.
    assert cells.count("data.crop") == 2
    assert cells.count("data.flip") == 1


@pytest.mark.parametrize("text", ["true", "a b", "it's", "null", "3", "$HOME", 'say "hi"', "跳"])
def test_the_command_keeps_any_text(text):
    settings = preset("stickfigures").changed({"data.test_subset": text, "seed": 3})
    verb = shlex.split(command_of(settings))
    assert preset(verb[2], verb[3:]) == settings


def test_settings_of_ones_own_are_repeated_from_their_file():
    settings = preset("stickfigures").changed({"name": "mine"})
    assert "config.json" in command_of(settings)


def test_labels_of_any_script_are_written_and_those_that_pictures_number_are_named(
    trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["detector"]["classes"][:2] = ["跳远", "قفز"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pictures" / "labels.json").write_text(json.dumps({"#1": "跳远", "#2": "<b>"}))
    page = Page(write_page(folder, read_report(folder)).read_text(encoding="utf-8"))
    assert ("p", "#1 跳远, #2 <b>") in page.texts
    (command,) = [text for tag, text in page.texts if "etadlite train" in text]
    (value, _) = [text for tag, text in page.texts if tag == "td" and text.startswith('["')]
    assert '"跳远", "قفز"' in command
    assert value.startswith('["跳远", "قفز", "')


def test_names_are_text_and_never_tags(trained, tmp_path):
    folder = tmp_path / "<img src=x> & run"
    shutil.copytree(trained, folder)
    shutil.copy(folder / "pictures" / "curves.png", folder / "pictures" / 'timeline_"><script>.png')
    config = json.loads((folder / "config.json").read_text())
    config["name"] = "<script>alert(1)"
    (folder / "config.json").write_text(json.dumps(config))
    report = read_report(folder)
    shown = f"{100 * report.average:.1f}"
    page = Page(write_page(folder, report).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4
    assert ("h1", f"<script>alert(1): average mAP {shown} %") in page.texts


def test_edges_cut_the_actions_into_groups_of_equal_size():
    rng = np.random.default_rng(0)
    spans = np.stack([np.zeros(500), rng.lognormal(1, 1, 500)], axis=1).tolist()
    entry = {"subset": "s", "duration": 200.0}
    entry["annotations"] = [{"segment": span, "label": "a"} for span in spans]
    edges = even_edges({"database": {"v": entry}}, "s")
    lengths = [end for _, end in spans]
    counts = np.bincount(np.searchsorted(edges["length"], lengths))
    assert counts.sum() == 500
    assert np.abs(counts - 100).max() < 20
    assert edges["instances"] == (500,)
    del entry["duration"]
    assert even_edges({"database": {"v": entry}}, "s")["coverage"] == (0.2, 0.4, 0.6, 0.8)
