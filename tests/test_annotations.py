"""Annotations: read, checked, and refused with a sentence that names the culprit."""

import copy
import json
from collections import Counter

import pytest

from etadlite.base.errors import InputError
from etadlite.data.annotations import Action, labels_of, read_annotations

GOOD = {
    "version": "1",
    "database": {
        "one": {
            "subset": "training",
            "duration": 20.0,
            "annotations": [
                {"segment": [1.0, 4.5], "label": "wave"},
                {"segment": [15, 20], "label": "jump"},
            ],
        },
        "two": {"subset": "validation", "duration": 7.5, "annotations": []},
    },
}


def _changed(**annotation):
    """The good file with its second annotation changed."""
    content = copy.deepcopy(GOOD)
    content["database"]["one"]["annotations"][1].update(annotation)
    return content


def test_a_file_and_its_content_read_the_same(tmp_path):
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(GOOD))
    videos = read_annotations(file)
    assert list(videos) == ["one", "two"]
    assert videos["one"].actions == (Action(1.0, 4.5, "wave"), Action(15.0, 20.0, "jump"))
    assert videos["two"].actions == ()
    assert (videos["two"].subset, videos["two"].duration) == ("validation", 7.5)
    assert read_annotations(str(file)) == videos == read_annotations(GOOD)
    assert labels_of(videos) == ["jump", "wave"]


def test_subset_labels_and_ignored_labels():
    assert list(read_annotations(GOOD, "validation")) == ["two"]
    known = read_annotations(GOOD, labels=["wave", "jump"])
    assert len(known["one"].actions) == 2
    ignored = read_annotations(GOOD, labels=["wave"], ignore=["jump"])
    assert ignored["one"].actions == (Action(1.0, 4.5, "wave"),)


def test_only_the_chosen_subset_is_checked():
    content = _changed(segment=[9.0, 3.0])
    assert list(read_annotations(content, "validation")) == ["two"]


def test_a_small_overshoot_is_cut_and_a_large_one_refused():
    assert read_annotations(_changed(segment=[15, 20.9]))["one"].actions[1].end == 20.0
    with pytest.raises(InputError, match=r"video one, annotation 1 \(jump\).*beyond.*20\.0 s"):
        read_annotations(_changed(segment=[15, 21.1]))


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ([5.0, 5.0], "starts and ends at 5.0 s"),
        ([20.0, 20.5], "beyond"),
        ([6.0, 5.0], "before it starts"),
        ([-0.1, 5.0], "before the video"),
        ([float("nan"), 5.0], "no two numbers"),
        ([1.0, float("inf")], "no two numbers"),
        ([True, 5.0], "no two numbers"),
        ([1.0, "soon"], "no two numbers"),
        ([1.0], r"must be \[start, end\]"),
        ("1-5", r"must be \[start, end\]"),
        (None, r"must be \[start, end\]"),
    ],
)
def test_wrong_segments_are_named(tmp_path, segment, message):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(_changed(segment=segment)))
    with pytest.raises(InputError, match=rf"mine\.json: video one, annotation 1.*{message}"):
        read_annotations(file)


def test_published_files_keep_what_is_refused_elsewhere():
    zero = read_annotations(_changed(segment=[5.0, 5.0]), as_published=True)
    assert zero["one"].actions[1] == Action(5.0, 5.0, "jump")
    beyond = read_annotations(_changed(segment=["30.5", "40"]), as_published=True)
    assert beyond["one"].actions[1] == Action(30.5, 40.0, "jump")
    content = copy.deepcopy(GOOD)
    del content["database"]["two"]["duration"]
    duration = read_annotations(content, as_published=True)["two"].duration
    assert duration != duration  # noqa: PLR0124 (NaN)


@pytest.mark.parametrize("segment", [[6.0, 5.0], [-1.0, 5.0], [float("nan"), 5.0]])
def test_nonsense_is_refused_even_as_published(segment):
    with pytest.raises(InputError):
        read_annotations(_changed(segment=segment), as_published=True)


@pytest.mark.parametrize("duration", [None, 0, -3.0, float("nan"), float("inf"), "long"])
def test_durations_are_checked(duration):
    content = copy.deepcopy(GOOD)
    content["database"]["two"]["duration"] = duration
    with pytest.raises(InputError, match='video two: "duration" must be'):
        read_annotations(content)


def test_labels_and_subsets_are_checked():
    with pytest.raises(InputError, match='video one, annotation 1 has the label "jump"'):
        read_annotations(GOOD, labels=["wave"])
    with pytest.raises(InputError, match='annotation 1 has no "label"'):
        read_annotations(_changed(label=None))
    with pytest.raises(InputError, match='subset "test"; choose one of training, validation'):
        read_annotations(GOOD, "test")
    with pytest.raises(InputError, match='video two has no "subset"'):
        read_annotations({"database": {"two": {"duration": 3.0, "annotations": []}}})
    with pytest.raises(InputError, match='"annotations" must be a list'):
        read_annotations(
            {"database": {"a": {"subset": "s", "duration": 1.0, "annotations": {"x": 1}}}}
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such annotation file"),
        ("", "is not JSON: .* line 1, column 1"),
        ("database: no", "is not JSON: .* line 1, column 1"),
        ("[]", 'has no "database"'),
        ('{"version": "1"}', 'has no "database"'),
        ('{"database": []}', 'has no "database"'),
        ('{"database": {}}', "has no videos"),
        ('{"database": {"a": 3}}', 'video a has no "subset"'),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=rf"mine\.json.*{message}"):
        read_annotations(file)


def test_a_folder_and_a_binary_file_are_refused(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"\xff\xfe\x00\x81")
    for path in (tmp_path, tmp_path / "video.mp4"):
        with pytest.raises(InputError, match="cannot be read as annotation file|is not JSON"):
            read_annotations(path)


def test_activitynet_as_published(shared):
    file = shared / "realdata/activitynet-1.3/activity_net.v1-3.available.min.json"
    videos = read_annotations(file, as_published=True)
    assert Counter(v.subset for v in videos.values()) == {"training": 9649, "validation": 4728}
    actions = [(a, v.duration) for v in videos.values() for a in v.actions]
    assert len(actions) == 22152
    assert len(labels_of(videos)) == 200
    assert sum(a.start == a.end for a, _ in actions) == 12
    over = [a.end - duration for a, duration in actions if a.end > duration]
    assert len(over) == 211
    assert max(over) == pytest.approx(0.848)
    with pytest.raises(InputError, match="starts and ends"):
        read_annotations(file)


def test_thumos_as_published(shared):
    file = shared / "realdata/thumos-14/thumos_14_anno.json"
    videos = read_annotations(file, as_published=True, ignore=["Ambiguous"])
    assert Counter(v.subset for v in videos.values()) == {"training": 200, "validation": 213}
    assert len(labels_of(videos)) == 20
    late = Counter(v.name for v in videos.values() for a in v.actions if a.start >= v.duration)
    assert sum(late.values()) == 30
    assert late["video_test_0000270"] == 22
    assert late["video_validation_0000364"] == 2
    scored = read_annotations(
        shared / "realdata/thumos-14/thumos_gt.json", "test", as_published=True
    )
    assert len(scored) == 210
