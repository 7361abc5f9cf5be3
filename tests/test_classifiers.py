"""Video-level class scores against published results, and what is wrong with a file."""

import json

import numpy as np
import pytest

from etadlite.base.errors import InputError
from etadlite.inference.classifiers import KINDS, THUMOS_CLASSES, LabelScores, UntrimmedNet


def test_untrimmednet_equals_opentad(shared):
    classifier = UntrimmedNet(shared / "realdata" / "thumos-14" / "uNet_test.npy")
    expected = json.loads((shared / "parity" / "untrimmednet_top2.json").read_text())
    for video, best in expected.items():
        found = classifier.top(video, 2)
        assert [label for label, _ in found] == [label for label, _ in best]
        assert [x for _, x in found] == pytest.approx([x for _, x in best], abs=1e-7)


def test_untrimmednet_knows_the_detection_classes(shared):
    path = shared / "realdata" / "thumos-14" / "thumos_gt.json"
    database = json.loads(path.read_text())["database"].values()
    labels = {action["label"] for entry in database for action in entry["annotations"]}
    assert set(THUMOS_CLASSES.values()) == labels


def test_untrimmednet_ranks_only_the_detection_classes(tmp_path):
    scores = np.zeros((2, 101), dtype=np.float32)
    scores[1, 0] = 9.0  # ApplyEyeMakeup, no class of THUMOS-14
    scores[1, 25] = 0.5
    np.save(tmp_path / "scores.npy", scores)
    best = UntrimmedNet(tmp_path / "scores.npy").top("video_test_0000002", 2)
    assert best == [("Diving", 0.5), ("VolleyballSpiking", 0.0)]


@pytest.mark.parametrize(
    "video", ["video_test_0000003", "video_test_0000000", "video_validation_0000001", "clip"]
)
def test_the_error_names_the_file_and_the_missing_video(tmp_path, video):
    np.save(tmp_path / "scores.npy", np.zeros((2, 101), dtype=np.float32))
    with pytest.raises(InputError, match=rf"scores\.npy.*{video}"):
        UntrimmedNet(tmp_path / "scores.npy").top(video, 1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 20)),
        np.full((2, 101), np.nan),
        np.zeros((2, 101), dtype="U3"),
        np.full((2, 101), None),
    ],
)
def test_untrimmednet_refuses_other_arrays(tmp_path, array):
    np.save(tmp_path / "scores.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=r"scores\.npy"):
        UntrimmedNet(tmp_path / "scores.npy")


@pytest.fixture
def cuhk(tmp_path):
    path = tmp_path / "cuhk.json"
    path.write_text(
        json.dumps(
            {
                "results": {"abc": [0.2, 0.7, 0.1], "tie": [0.1, 0.45, 0.45], "odd": [0.5]},
                "class": ["run", "jump", "swim"],
            }
        )
    )
    return KINDS["cuhk"](path)


def test_cuhk_takes_the_best_with_or_without_prefix(cuhk):
    assert cuhk.top("abc", 2) == [("jump", 0.7), ("run", 0.2)]
    assert cuhk.top("v_abc", 1) == [("jump", 0.7)]
    assert cuhk.top("tie", 3) == [("jump", 0.45), ("swim", 0.45), ("run", 0.1)]


@pytest.mark.parametrize(
    ("video", "k", "message"),
    [
        ("gone", 2, r"cuhk\.json: no scores for video 'gone'"),
        ("odd", 2, r"cuhk\.json: video 'odd' needs 3 finite scores"),
        ("abc", 0, "k is 0"),
        ("abc", 4, "k is 4"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_file_or_k(cuhk, video, k, message):
    with pytest.raises(InputError, match=message):
        cuhk.top(video, k)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"results": {}}', '{"results": [], "class": ["a"]}']
)
def test_the_error_names_a_malformed_file_of_scores(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.json"):
        LabelScores(path)


def test_the_error_names_a_missing_file(tmp_path):
    for kind in KINDS.values():
        with pytest.raises(InputError, match="absent"):
            kind(tmp_path / "absent")


def test_label_scores_from_memory():
    scores = LabelScores({"clip": [0.1, 0.9]}, ["run", "jump"])
    assert scores.top("clip", 1) == [("jump", 0.9)]
    with pytest.raises(InputError, match="the given scores: no scores for video 'other'"):
        scores.top("other", 1)
