"""Pictures: what is drawn, where, and in which colours."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from etadlite.base.errors import InputError
from etadlite.viz import draw_curves, draw_timeline
from etadlite.viz.method import draw_method
from etadlite.viz.style import COLOURS, HATCHES, looks_of, png, save
from etadlite.viz.timeline import lanes_of

FRAMES = np.random.default_rng(0).integers(0, 255, (6, 9, 16, 3), dtype=np.uint8)


def segment(start, end, label="run", **score):
    return {"segment": [start, end], "label": label, **score}


def bars(axis):
    ends = ((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches)
    return [tuple(np.round(pair, 6).tolist()) for pair in ends]


@pytest.mark.parametrize("name", ["a.foo", "folder", "a.png.part"])
def test_a_name_that_is_no_picture_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is no name of a picture; it should end in .*png"):
        save(draw_curves({"none": []}), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_bars_lie_where_the_segments_are_in_seconds():
    rows = {
        "true": [segment(2, 5), segment(6.5, 9, "jump")],
        "detected": [segment(2.2, 5.1, score=0.9)],
    }
    figure = draw_timeline(FRAMES, 10.0, rows, title="a video")
    pictures, true, detected = figure.axes
    assert bars(true) == [(2, 5), (6.5, 9)]
    assert bars(detected) == [(2.2, 5.1)]
    assert all(axis.get_xlim() == (0, 10) for axis in figure.axes)
    assert [axis.get_ylabel() for axis in (true, detected)] == ["true", "detected"]
    assert [text.get_text().strip() for text in detected.texts] == ["run 0.90"]
    assert [image.get_extent()[:2] for image in pictures.images][::5] == [
        pytest.approx([0, 10 / 6]),
        pytest.approx([50 / 6, 10]),
    ]


def test_a_class_has_the_same_colour_in_all_rows_and_no_other_class_has_it():
    rows = {
        "true": [segment(0, 1, "run"), segment(2, 3, "jump")],
        "detected": [segment(0, 1, "jump", score=1.0), segment(2, 3, "run", score=0.2)],
    }
    _, true, detected = draw_timeline(FRAMES, 3.0, rows).axes
    colours = [[bar.get_facecolor()[:3] for bar in axis.patches] for axis in (true, detected)]
    assert colours[0] == colours[1][::-1]
    assert colours[0][0] != colours[0][1]
    alphas = [bar.get_alpha() for bar in detected.patches]
    assert alphas[0] > alphas[1] > 0


def test_the_best_detections_and_all_true_actions_are_shown():
    many = [segment(i, i + 1, score=i / 30) for i in range(30)]
    rows = {"true": [segment(i, i + 1) for i in range(30)], "detected": many}
    _, true, detected = draw_timeline(FRAMES, 30.0, rows, top=4).axes
    assert len(true.patches) == 30
    assert sorted(bars(detected)) == [(i, i + 1) for i in range(26, 30)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=12))
def test_segments_in_a_lane_never_overlap(spans):
    segments = [segment(start, start + length) for start, length in spans]
    lanes = lanes_of(segments)
    assert len(lanes) == len(segments)
    for i, a in enumerate(segments):
        for j, b in enumerate(segments[:i]):
            overlap = a["segment"][0] < b["segment"][1] and b["segment"][0] < a["segment"][1]
            assert not (overlap and lanes[i] == lanes[j])
    # No more lanes than segments that lie over one another.
    deepest = max((sum(s <= t < s + n for s, n in spans) for t in range(30)), default=0)
    assert len(set(lanes)) <= max(2 * deepest - 1, 0)


@pytest.mark.parametrize("rows", [{}, {"true": []}, {"true": [], "detected": []}])
def test_a_timeline_without_frames_or_segments_can_be_drawn(rows, tmp_path):
    figure = draw_timeline(np.empty((0, 1, 1, 3), np.uint8), 10.0, rows)
    assert len(figure.axes) == 1 + len(rows)
    assert save(figure, tmp_path / "empty.png").stat().st_size > 1000


def test_a_label_that_does_not_fit_its_bar_stands_in_a_legend():
    rows = {"true": [segment(0, 9, "run"), segment(9, 9.2, "CricketBowling")]}
    (legend,) = draw_timeline(FRAMES, 10.0, rows).legends
    bars = zip(legend.get_texts(), legend.legend_handles, strict=True)
    shown = {text.get_text(): patch.get_facecolor()[:3] for text, patch in bars}
    _, true = draw_timeline(FRAMES, 10.0, rows).axes
    assert shown == {
        label: bar.get_facecolor()[:3]
        for label, bar in zip(("run", "CricketBowling"), true.patches, strict=True)
    }
    assert not draw_timeline(FRAMES, 10.0, {"true": rows["true"][:1]}).legends
    # A bar of 11 inches is 10 seconds; 14 columns take 0.84 inches.
    for length, fits in ((0.75, False), (0.78, True)):
        labelled = {"true": [segment(1, 1 + length, "CricketBowling")]}
        assert (not draw_timeline(FRAMES, 10.0, labelled).legends) == fits


def test_names_are_shown_as_they_are(tmp_path):
    rows = {"detected": [segment(0, 1, r"100 $ \frac", score=0.5)]}
    figure = draw_timeline(FRAMES, 3.0, rows, title=r"$\frac{$ video_1.mp4")
    assert save(figure, tmp_path / "deep" / "names.png").exists()


def test_a_picture_is_a_png_of_the_frames(tmp_path):
    red = np.zeros((3, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    path = save(draw_timeline(red, 3.0, {"true": []}), tmp_path / "a.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == (255, 0, 0)).all(-1).mean() > 0.2


def records(count, start=2.0, tests=()):
    steps = [{"step": i, "epoch": i / 4, "loss": start / i} for i in range(1, count + 1)]
    return [*steps, *({"step": 0, "epoch": e, "average_mAP": value} for e, value in tests)]


def test_curves_show_the_loss_and_the_map_in_percent():
    figure = draw_curves({"one": records(8, tests=[(1, 0.1), (2, 0.25)]), "two": records(4)})
    losses, maps = figure.axes
    faint, smooth, *_ = losses.lines
    assert faint.get_xdata().tolist() == [i / 4 for i in range(1, 9)]
    assert faint.get_ydata().tolist() == [2.0 / i for i in range(1, 9)]
    assert smooth.get_ydata().std() < faint.get_ydata().std()
    assert [line.get_ydata().tolist() for line in maps.lines] == [[10.0, 25.0]]
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert labels == ["one", "two"]


def test_one_step_off_the_chart_does_not_flatten_the_others():
    steps = [{"epoch": i / 100, "loss": 30.0 if i == 1 else 2.0} for i in range(300)]
    losses, _ = draw_curves({"one": steps}).axes
    low, high = losses.get_ylim()
    assert low == 0
    assert 2.0 < high < 15


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_smoothing_keeps_the_length_and_stays_in_range(values):
    figure = draw_curves({"a": [{"epoch": i, "loss": v} for i, v in enumerate(values)]})
    smooth = figure.axes[0].lines[1].get_ydata()
    assert len(smooth) == len(values)
    assert smooth.min() >= min(values) - 1e-6
    assert smooth.max() <= max(values) + 1e-6


def test_more_runs_than_colours_are_all_drawn():
    runs = {f"run {i}": records(3) for i in range(len(COLOURS) + 3)}
    losses, _ = draw_curves(runs).axes
    assert len(losses.get_legend().get_texts()) == len(runs)


def test_runs_without_records_give_an_empty_picture(tmp_path):
    assert save(draw_curves({"none": []}), tmp_path / "none.png").exists()


def test_colours_differ_clearly_and_hatches_tell_apart_more_classes():
    labels = [str(i) for i in range(len(COLOURS) * len(HATCHES))]
    looks = looks_of(labels)
    assert [looks[label] for label in labels[: len(COLOURS)]] == [(c, "") for c in COLOURS]
    assert len(set(looks.values())) == len(labels) > 200  # ActivityNet-1.3 has 200 classes
    rgb = np.array([to_rgb(c) for c in COLOURS])
    apart = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1)[np.triu_indices(len(COLOURS), 1)]
    assert apart.min() > 0.25


def test_classes_of_one_colour_have_different_hatches_in_bars_and_legend():
    labels = [f"class {i}" for i in range(len(COLOURS) + 1)]
    rows = {"true": [segment(0, 0.2, labels[0]), segment(0.3, 0.5, labels[-1])]}
    figure = draw_timeline(FRAMES, 20.0, rows, labels=labels)
    first, last = figure.axes[1].patches
    assert first.get_facecolor() == last.get_facecolor()
    assert (first.get_hatch() or "", last.get_hatch()) == ("", HATCHES[1])
    shown = figure.legends[0].legend_handles
    assert [patch.get_hatch() or "" for patch in shown] == ["", HATCHES[1]]


def test_runs_of_one_colour_have_different_lines():
    losses, _ = draw_curves({f"run {i}": records(3) for i in range(len(COLOURS) + 1)}).axes
    smooth = losses.lines[1::2]
    assert smooth[0].get_color() == smooth[-1].get_color()
    assert smooth[0].get_linestyle() != smooth[-1].get_linestyle()


# Texts on bars


def texts_of(figure, width=12.0):
    """The texts that are seen on the bars of the last row, once it is drawn so wide."""
    figure.set_size_inches(width, figure.get_figheight())
    figure.draw_without_rendering()
    return [text.get_text().strip() for text in figure.axes[-1].texts]


def test_a_text_that_has_no_room_loses_its_score_then_its_label():
    row = [
        segment(0, 4, "jump", score=0.91),
        segment(4, 4.35, "catch", score=0.62),
        segment(5, 5.1, "throw", score=0.33),
        segment(5.2, 9, "run", score=0.22),
    ]
    figure = draw_timeline(FRAMES, 10.0, {"detected": row})
    seen = texts_of(figure)
    assert seen == ["jump 0.91", "catch 0.62", "", "run 0.22"]  # free space is used
    assert texts_of(figure, 3.0) == ["jump 0.91", "", "", "run 0.22"]
    assert texts_of(figure) == seen  # and back
    assert len(figure.legends) == 1


@pytest.mark.parametrize("width", [5.0, 12.0])
def test_no_text_is_cut_and_none_covers_the_next_bar(width):
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 90, 30), rng.integers(1, 30, 30)
    row = [segment(a, a + n, "a label", score=0.5) for a, n in zip(starts, lengths, strict=True)]
    figure = draw_timeline(FRAMES[:0], 120.0, {"detected": row}, top=30)
    assert set(texts_of(figure, width)) == {"a label 0.50", "a label", ""}
    axis = figure.axes[-1]
    boxes = [bar.get_window_extent() for bar in axis.patches]
    for text in axis.texts:
        if text.get_text():
            own = text.get_window_extent()
            assert own.x1 <= axis.get_window_extent().x1 + 1
            for box in boxes:
                if box.y0 < (own.y0 + own.y1) / 2 < box.y1 and box.x0 > own.x0 + 0.5:
                    assert own.x1 <= box.x0 + 1


def opacities(figure):
    return {text.get_text(): text.get_alpha() for text in figure.axes[0].texts}


def test_the_picture_of_the_method_lights_one_part_and_dims_the_others():
    assert set(opacities(draw_method()).values()) == {None}
    for lit, text in {
        "detector": "detector: forward and backward",
        "passes": "features",
        "snippets": "a sample of the snippets",
        "proposals": "a sample of the proposals",
        "test": "test: classes, NMS, mAP",
        "windows": "windows of long videos",
        "videos": "videos and labels",
    }.items():
        found = opacities(draw_method(lit))
        assert found[text] is None
        assert found["a training step: three passes"] < 0.3


def test_no_text_in_the_picture_of_the_method_covers_another_or_is_cut():
    figure = draw_method()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {
        text.get_text() + str(text.get_position()): text.get_window_extent(canvas.get_renderer())
        for text in figure.axes[0].texts
    }
    for (first, a), (second, b) in combinations(boxes.items(), 2):
        assert not a.overlaps(b), (first, second)
    for name, box in boxes.items():
        assert min(box.x0, box.y0, *(figure.bbox.p1 - box.p1)) >= 0, name


def test_a_picture_brings_its_own_light_ground_so_that_it_is_readable_in_a_dark_theme():
    for figure in (draw_method("snippets"), draw_curves({"a": [{"epoch": 1, "loss": 2.0}]})):
        picture = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGBA"))
        assert (picture[..., 3] == 255).all()
        assert (picture[0, :, :3] > 240).all()


def test_the_readme_shows_the_picture_of_the_method_as_it_is_drawn_now():
    """Else: `draw_method().savefig("notebooks/pictures/method.png", dpi=100)`."""
    kept = Path(__file__).parents[1] / "notebooks" / "pictures" / "method.png"
    figure = draw_method()
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L").resize((300, 172))
    shown = Image.open(kept).convert("L").resize((300, 172))
    assert np.abs(np.subtract(drawn, shown, dtype=float)).mean() < 2
