"""Real clips joined to videos: nothing of a test in training, no cut at an action."""

import json
from itertools import pairwise
from pathlib import Path

import make_real_small
import numpy as np
import pytest
from benchmarks.real_small import LITE0, SYSTEMS, read_runs, settings_of, table_of
from make_real_small import PAUSE, found_clips, make, of_length, to_and_fro

from etadlite.base.errors import InputError
from etadlite.data.annotations import read_annotations
from etadlite.data.video import Video
from etadlite.stickfigures.dataset import write_video

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "real_small.json"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten groups of two actions and a clip without, each of its own grey and length."""
    folder = tmp_path_factory.mktemp("clips")
    for group in range(1, 11):
        for label, length in ((0, 20), (1, 26), (6, 23)):
            ramp = np.linspace(40, 200, length)[:, None, None, None]
            noise = np.random.default_rng(group).integers(0, 30, (length, 48, 64, 3))
            write_video(folder / f"{label}_{group}_{label}.mp4", (ramp + noise).astype(np.uint8))
    return found_clips(folder, r"\d+_(?P<group>\d+)_(?P<label>\d+)", ("nod", "wave"), "6")


def test_the_names_of_clips_say_group_and_class(clips):
    assert len(clips) == 30
    assert {clip.label for clip in clips} == {"nod", "wave", ""}
    assert [clip.group for clip in clips] == sorted(clip.group for clip in clips)


@pytest.mark.parametrize(
    ("pattern", "classes", "message"),
    [("x(?P<group>.)(?P<label>.)", (), "does not fit"), (None, ("nod",), "class 1 has no name")],
)
def test_a_name_that_does_not_fit_is_refused(clips, pattern, classes, message):
    pattern = pattern or r"\d+_(?P<group>\d+)_(?P<label>\d+)"
    with pytest.raises(InputError, match=message):
        found_clips(clips[0].path.parent, pattern, classes, "6")


@pytest.mark.parametrize("fold", [0, 3])
def test_nothing_of_a_test_video_is_seen_in_training(clips, tmp_path, monkeypatch, fold):
    used = {}
    plan = make_real_small.joined

    def noted(chosen, side, chance):
        used.setdefault(len(used), {clip.group for clip in chosen})
        return plan(chosen, side, chance)

    monkeypatch.setattr(make_real_small, "joined", noted)
    cuts = make(clips, tmp_path, fold, 32, 0)
    subsets = dict(zip(cuts, used.values(), strict=True))
    tested = {2 * fold + 1, 2 * fold + 2}
    for name, groups in subsets.items():
        assert groups <= tested if name.startswith("validation") else not groups & tested


def test_no_cut_marks_an_action_and_an_action_is_as_long_as_its_clip(clips, tmp_path):
    cuts = make(clips, tmp_path, 0, 32, 0)
    videos = read_annotations(tmp_path / "annotations.json")
    assert len(videos) == len(cuts) == 14  # 16 actions twice and 4 once, three per video
    assert sum(len(video.actions) for video in videos.values()) == 36  # none is left out
    for name, video in videos.items():
        info = Video(tmp_path / "videos" / f"{name}.mp4").info
        assert info.duration == pytest.approx(video.duration)
        assert (info.width, info.height) == (32, 32)
        for action in video.actions:
            length = {"nod": 20, "wave": 26}[action.label]
            assert round(15 * (action.end - action.start)) == length
            for border in (action.start, action.end):
                assert min(abs(cut - border) for cut in cuts[name]) > PAUSE[0] - 1 / 15
        assert all(a < b for a, b in pairwise(cuts[name]))


def test_the_same_seed_makes_the_same_data_and_another_folder_is_refused(clips, tmp_path):
    for root in (tmp_path / "a", tmp_path / "b"):
        make(clips, root, 0, 32, 0)
    made = [(tmp_path / n / "annotations.json").read_text() for n in "ab"]
    assert json.loads(made[0]) == json.loads(made[1])
    with pytest.raises(InputError, match="made with other settings"):
        make(clips, tmp_path / "a", 1, 32, 0)


def test_a_subset_without_background_is_refused(clips, tmp_path):
    with pytest.raises(InputError, match="with and without an action"):
        make([clip for clip in clips if clip.label], tmp_path, 0, 32, 0)


@pytest.mark.parametrize("frames", [1, 2, 5, 30])
def test_frames_that_are_played_to_and_fro_are_neighbours(frames):
    held = to_and_fro(40, frames)
    steps = np.abs(np.diff(np.concatenate(([0], held))))
    assert held.min() >= 0
    assert held.max() <= min(4, frames - 1)
    assert (steps == (frames > 1)).all()
    long = of_length(np.arange(frames), 40)
    assert (np.abs(np.diff(long)) == (frames > 1)).all()
    assert len(long) == 40


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_systems_that_are_compared_have_settings_of_their_own(tmp_path, system):
    settings = settings_of(system, tmp_path, 3)
    assert settings.seed == 3
    assert settings.data.videos == tmp_path / "videos"
    assert settings.detector.classes == make_real_small.UT_INTERACTION
    assert settings.encoder.name == ("timm:tf_efficientnet_lite0" if system in LITE0 else "tiny")
    assert (settings.data.features is not None) == ("frozen" in system)
    others = [settings_of(other, tmp_path, 3) for other in SYSTEMS if other != system]
    assert settings not in others


def rows_of(path, heading):
    """The rows of the table below a heading: the name, then the numbers."""
    table = (ROOT / path).read_text(encoding="utf-8").partition(heading)[2].partition("\n\n")[2]
    table = table[table.index("|") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table]


def test_tables_of_real_footage_say_what_was_measured():
    measured = {row[0]: row[1:7] for row in table_of(read_runs(RESULTS))[1:]}
    every = rows_of("data_scripts/README.md", "## Real clips on a laptop")
    assert [row[1:] for row in every] == list(measured.values())
    first = rows_of("README.md", "## What it gains on real footage")
    trained = ("end to end, 30 % of the snippets", "end to end, feature bank")
    shown = ("frozen", "frozen, 125 epochs", *trained)
    assert [row[1:] for row in first] == [measured[name] for name in shown]
    assert f"(with 375: {measured['frozen, 375 epochs'][-1].split()[0]})" in first[1][0]
