"""Average precision compared with official results and with a plain sequential version."""

import json
from copy import deepcopy

import numpy as np
import pytest
from benchmarks import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.evaluation import PredictionWarning, mean_average_precision
from etadlite.evaluation.arrays import read_ground_truth

FOLDER = {"thumos14": "thumos-14", "anet13": "activitynet-1.3"}


@pytest.mark.filterwarnings("ignore::etadlite.evaluation.PredictionWarning")
@pytest.mark.parametrize("name", ["thumos14", "anet13"])
def test_average_precision_equals_the_official_evaluation(shared, name):
    expected = json.loads((shared / "parity" / "evaluation.json").read_text())[name]
    result = mean_average_precision(
        shared / "realdata" / FOLDER[name] / expected["ground_truth"],
        shared / "parity" / f"{name}_noisy_predictions.json",
        subset=expected["subset"],
        tiou=expected["tiou"],
    )
    assert result.per_tiou == pytest.approx(expected["mAP"], abs=1e-6)
    assert result.average == pytest.approx(expected["average"], abs=1e-6)
    assert result.per_class.shape == (len(result.labels), len(expected["tiou"]))


def test_predictions_of_no_length_in_a_published_file_are_warned_of(shared):
    with pytest.warns(PredictionWarning, match=r"thumos14_noisy\S+json: 1 of 26488 .*'video_test_"):
        mean_average_precision(
            shared / "realdata" / "thumos-14" / "thumos_gt.json",
            shared / "parity" / "thumos14_noisy_predictions.json",
            subset="test",
            tiou=[0.5],
        )


def test_the_validation_subset_has_4728_videos_as_published(shared):
    """The file holds these videos; the list of blocked videos would remove 31 more."""
    folder = shared / "realdata" / "activitynet-1.3"
    file = folder / "activity_net.v1-3.available.min.json"
    assert len(read_ground_truth(file, "validation").videos) == 4728
    assert len(read_ground_truth(file, "validation", folder / "blocked.json").videos) == 4697


# With few videos, labels, positions and scores, ties and competition are common.
segment = st.tuples(st.integers(0, 6), st.integers(0, 4)).map(lambda x: (x[0], x[0] + x[1]))
actions = st.lists(st.tuples(segment, st.sampled_from("ab")), max_size=5)
guesses = st.lists(
    st.tuples(segment, st.sampled_from("ab"), st.integers(0, 5).map(lambda x: x / 5)), max_size=12
)


def as_truth(truth, subset="test"):
    return {
        "database": {
            video: {
                "subset": subset,
                "duration": 20.0,
                "annotations": [{"segment": list(s), "label": label} for s, label in items],
            }
            for video, items in truth.items()
        }
    }


def as_predictions(predictions):
    return {
        "results": {
            video: [{"segment": list(s), "label": label, "score": x} for s, label, x in items]
            for video, items in predictions.items()
        }
    }


@pytest.mark.filterwarnings("ignore::etadlite.evaluation.PredictionWarning")
@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries({"v": actions, "w": actions}),
    st.fixed_dictionaries({"v": guesses, "w": guesses}),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_average_precision_equals_the_sequential_version(truth, predictions, threshold):
    truth["u"] = [((0, 1), "a"), ((2, 3), "b")]
    result = mean_average_precision(
        as_truth(truth), as_predictions(predictions), subset="test", tiou=[threshold]
    )
    assert result.average == pytest.approx(
        plain.mean_average_precision(truth, predictions, threshold), abs=1e-12
    )


TRUTH = as_truth({"v": [((0, 10), "run"), ((20, 30), "run")], "w": [((5, 6), "jump")]})
GUESS = as_predictions({"v": [((0, 10), "run", 0.9), ((21, 30), "run", 0.8)], "w": []})


def scored(truth=TRUTH, guess=GUESS, **settings):
    settings = {"subset": "test", "tiou": [0.5, 0.95], **settings}
    return mean_average_precision(truth, guess, **settings)


def test_average_precision_of_a_case_by_hand():
    result = scored()
    assert result.labels == ["run", "jump"]
    assert result.per_class.tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert result.per_tiou.tolist() == [0.5, 0.25]
    assert result.average == 0.375


def test_no_prediction_scores_zero():
    assert scored(guess={"results": {"v": [], "w": []}}).average == 0.0
    with pytest.warns(PredictionWarning, match="2 of the 2 videos"):
        assert scored(guess={"results": {}}).average == 0.0


def test_videos_without_predictions_are_warned_of():
    guess = {"results": {"v": GUESS["results"]["v"]}}
    with pytest.warns(PredictionWarning, match=r"1 of the 2 videos .* the first of them is 'w'"):
        assert scored(guess=guess).average == 0.375


def test_thresholds_keep_their_order():
    assert scored(tiou=[0.95, 0.5]).per_tiou.tolist() == [0.25, 0.5]


def test_evenly_spaced_thresholds_equal_those_of_linspace():
    # 0.009 / 0.01 lies one rounding step below 0.9, like the official threshold.
    truth = as_truth({"v": [((0.01, 0.02), "run")]})
    guess = as_predictions({"v": [((0.011, 0.02), "run", 1.0)]})
    tiou = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert scored(truth, guess, tiou=tiou).per_tiou.tolist() == [1.0] * 9 + [0.0]
    assert scored(truth, guess, tiou=np.linspace(0.5, 0.95, 10)).average == pytest.approx(0.9)


def test_blocked_videos_count_on_neither_side(tmp_path):
    assert scored(blocked=["w"]).labels == ["run"]
    path = tmp_path / "blocked.json"
    path.write_text('["w"]')
    assert scored(blocked=path).per_tiou.tolist() == [1.0, 0.5]
    # A blocked video is ignored even if its prediction would be refused otherwise.
    extra = deepcopy(GUESS)
    extra["results"]["gone"] = [{"segment": [0, 1], "label": "?", "score": 1}]
    assert scored(guess=extra, blocked=["gone"]).average == 0.375


def test_a_segment_of_no_length_matches_nothing():
    truth = as_truth({"v": [((4, 4), "run"), ((0, 2), "run")]})
    guess = as_predictions({"v": [((4, 4), "run", 0.9), ((0, 2), "run", 0.8)]})
    with pytest.warns(PredictionWarning, match=r"1 of 2 predictions have no length.* 'v', at 4 s"):
        assert scored(truth, guess, tiou=[0.5]).average == pytest.approx(0.25)


def test_ambiguous_is_not_a_class():
    truth = as_truth({"v": [((0, 10), "run"), ((20, 30), "Ambiguous")]})
    assert scored(truth, tiou=[0.5], guess={"results": {"v": []}}).labels == ["run"]


def test_a_class_of_another_subset_does_not_count_in_the_mean():
    truth = deepcopy(TRUTH)
    truth["database"]["t"] = as_truth({"t": [((0, 1), "swim")]}, "training")["database"]["t"]
    guess = deepcopy(GUESS)
    guess["results"]["w"] = [{"segment": [0, 1], "label": "swim", "score": 1.0}]
    assert scored(truth, guess).average == 0.375


def test_paths_and_dicts_give_the_same(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "guess.json").write_text(json.dumps(GUESS))
    assert scored(str(tmp_path / "truth.json"), tmp_path / "guess.json").average == 0.375


def change(data, key, value):
    """Return predictions with one field of the first one replaced."""
    data = deepcopy(data)
    data["results"]["v"][0][key] = value
    return data


def without(data, key):
    data = deepcopy(data)
    del data["results"]["v"][0][key]
    return data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guess": change(GUESS, "score", float("nan"))}, "'v', prediction 0 .*'score': nan"),
        ({"guess": change(GUESS, "score", "high")}, "'v', prediction 0 .*malformed.*high"),
        (
            {"guess": change(GUESS, "segment", [10, 0])},
            r"'v', prediction 0 .*'segment': \[10, 0\]",
        ),
        ({"guess": change(GUESS, "segment", [1, 2, 3])}, "'v'.*malformed"),
        ({"guess": change(GUESS, "segment", 7)}, "'v'.*malformed"),
        ({"guess": change(GUESS, "score", [0.5])}, "'v', prediction 0 is malformed.*score"),
        ({"guess": change(GUESS, "label", "fly")}, "'v'.*'fly'"),
        ({"guess": change(GUESS, "label", 3)}, "'v'.*malformed"),
        ({"guess": without(GUESS, "score")}, "'v'.*malformed.*score"),
        ({"guess": {"results": {"x": [], "y": []}}}, r"'x' is not in .*\(2 such videos\)"),
        ({"guess": {"results": {"v": None}}}, "'v'.*malformed"),
        ({"guess": {"version": "1"}}, "no .results."),
        ({"guess": {"results": []}}, "no .results."),
        ({"truth": {"results": {}}}, "no .database."),
        ({"truth": {"database": {}}}, "empty"),
        ({"subset": "validation"}, "'validation' holds no annotated action.*test"),
        ({"truth": as_truth({"v": []})}, "holds no annotated action"),
        ({"blocked": ["v", "w"]}, "no annotated action .*outside the blocked videos"),
        ({"truth": as_truth({"v": [((5, 1), "run")]})}, "video v.*ends at 1.0 s"),
        ({"truth": {"database": {"v": {"subset": "test"}}}}, "holds no annotated action"),
        ({"truth": {"database": {"v": {"annotations": []}}}}, "video v has no .subset."),
        ({"tiou": []}, "tiou is"),
        ({"tiou": 0.5}, "tiou is"),
        ({"tiou": "0.5"}, "tiou is"),
        ({"tiou": [0.0, 0.5]}, "tiou is"),
        ({"tiou": [1.5]}, "tiou is"),
        ({"tiou": [float("nan")]}, "tiou is"),
        ({"tiou": [[0.5]]}, "tiou is"),
        ({"blocked": {"v": 1}}, "not a list"),
        ({"blocked": [3]}, "not a list of video names"),
    ],
)
def test_an_error_names_what_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message):
        scored(**arguments)


def test_an_error_names_the_subset_of_a_foreign_video():
    truth = deepcopy(TRUTH)
    truth["database"]["t"] = {"subset": "training", "annotations": []}
    with pytest.raises(InputError, match=r"'t' is in subset 'training'.*\(1 such videos\)"):
        scored(truth, {"results": {"t": []}})


@pytest.mark.parametrize("content", [None, "{", b"\xff\xfe\x00"])
def test_an_error_names_an_unreadable_file(tmp_path, content):
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in ({"truth": path}, {"guess": path}, {"blocked": path}):
        with pytest.raises(InputError, match=r"broken\.json"):
            scored(**arguments)


def test_actions_that_are_annotated_twice_are_kept_or_dropped(shared):
    file = shared / "realdata" / "activitynet-1.3" / "activity_net.v1-3.available.min.json"
    counts = [
        len(read_ground_truth(file, "validation", duplicates=rule).segments)
        for rule in ("keep", "drop")
    ]
    assert counts == [7293, 7271]


def test_the_rule_of_opentad_drops_near_twins_of_a_class_and_what_has_no_length():
    segments = [[1, 2], [1.0009, 2], [1.002, 2], [1, 2.0005], [3, 3]]
    actions = [{"segment": s, "label": "a"} for s in segments]
    actions.append({"segment": [1, 2], "label": "b"})
    truth = {"database": {"v": {"subset": "s", "annotations": actions}}}
    kept = read_ground_truth(truth, "s", duplicates="drop")
    assert kept.segments.tolist() == [[1, 2], [1.002, 2], [1, 2]]
    assert len(read_ground_truth(truth, "s").segments) == 6
    guess = {"results": {"v": [{"segment": [1, 2], "score": 1.0, "label": "b"}]}}
    options = {"subset": "s", "tiou": [0.5]}
    kept, dropped = (
        mean_average_precision(truth, guess, **options, duplicates=rule).per_class[:, 0]
        for rule in ("keep", "drop")
    )
    assert kept.tolist() == dropped.tolist() == [0, 1]
    guess["results"]["v"][0]["label"] = "a"
    kept, dropped = (
        mean_average_precision(truth, guess, **options, duplicates=rule).per_class[0, 0]
        for rule in ("keep", "drop")
    )
    assert (kept, dropped) == (1 / 5, 1 / 2)
