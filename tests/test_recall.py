"""Average recall and breakdowns compared with plain counting."""

import json

import numpy as np
import pytest
from benchmarks.plain import overlap
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.evaluation import mean_average_precision
from etadlite.evaluation.error_analysis import breakdown
from etadlite.evaluation.recall import average_recall

segment = st.tuples(st.integers(0, 8), st.integers(1, 5)).map(lambda x: [x[0], x[0] + x[1]])
guess = st.fixed_dictionaries({"segment": segment, "score": st.integers(0, 4).map(lambda x: x / 4)})


def as_truth(truth):
    return {
        "database": {
            video: {
                "subset": "test",
                "duration": 500.0,
                "annotations": [{"segment": s, "label": label} for s, label in items],
            }
            for video, items in truth.items()
        }
    }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(segment, min_size=1, max_size=4),
    st.lists(segment, max_size=4),
    st.lists(guess, max_size=8),
    st.lists(guess, max_size=8),
)
def test_recall_equals_counting(first, second, guesses, more):
    truth = {"v": [(s, "a") for s in first], "w": [(s, "b") for s in second]}
    results = {"v": guesses, "w": more}
    tiou, amounts = [0.3, 0.6], [4, 1, 100]
    found = average_recall(
        as_truth(truth), {"results": results}, subset="test", tiou=tiou, proposals=amounts
    )
    for k, threshold in enumerate(tiou):
        for a, amount in enumerate(amounts):
            hits = [
                any(
                    overlap(s, p["segment"]) >= threshold
                    for p in sorted(results[video], key=lambda p: -p["score"])[:amount]
                )
                for video, items in truth.items()
                for s, _ in items
            ]
            assert found.per_tiou[k, a] == pytest.approx(sum(hits) / len(hits))
    assert found.average == pytest.approx(found.per_tiou.mean(0))


def test_recall_on_real_annotations_grows_with_the_number_of_proposals(shared):
    def recall(**settings):
        return average_recall(
            shared / "realdata" / "activitynet-1.3" / "activity_net.v1-3.available.min.json",
            shared / "parity" / "anet13_noisy_predictions.json",
            subset="validation",
            tiou=np.linspace(0.5, 0.95, 10),
            **settings,
        )

    average = recall().average
    assert (np.diff(average) > 0).all()
    assert recall(proposals=[100]).average[0] == average[3]


TRUTH = as_truth(
    {
        "v": [([0, 30], "a"), ([40, 71], "a"), ([100, 220], "b")],
        "w": [([0, 180], "b"), ([200, 400], "b")],
    }
)
GUESS = {
    "results": {
        "v": [
            {"segment": [0, 30], "score": 0.9, "label": "a"},
            {"segment": [0, 29], "score": 0.8, "label": "a"},
            {"segment": [100, 220], "score": 0.7, "label": "b"},
        ],
        "w": [{"segment": [200, 300], "score": 0.9, "label": "b"}],
    }
}


def test_breakdown_by_hand():
    parts = breakdown(TRUTH, GUESS, subset="test", tiou=[0.5, 0.75])
    assert parts.labels == ["a", "b"]
    assert parts.class_count.tolist() == [2, 3]
    np.testing.assert_allclose(parts.class_recall, [[0.5, 0.5], [2 / 3, 1 / 3]])
    assert parts.lengths == ("XS", "S", "M", "L", "XL")
    assert parts.length_count.tolist() == [1, 1, 1, 1, 1]
    assert parts.length_recall.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0], [1, 0]]
    # At 0.5 the prediction of 100 s takes an action of 200 s. At 0.75 it takes none, and counts as
    # a false positive of its own length.
    assert parts.length_precision.tolist() == [[1, 1], [0, 0], [1, 0.5], [0, 0], [1, 0]]


def precision_of_length(truth, results, threshold, edges, group):
    """Compute average precision of a length group step by step; None without ground truth."""

    def group_of(segment):
        return sum(segment[1] - segment[0] > edge for edge in edges)

    precisions = []
    for label in "ab":
        own = {v: [s for s, name in items if name == label] for v, items in truth.items()}
        total = sum(group_of(s) == group for items in own.values() for s in items)
        if not total:
            continue
        ranked = [(v, p) for v, items in results.items() for p in items if p["label"] == label]
        ranked.sort(key=lambda item: -item[1]["score"])
        outcomes = []  # of the predictions that count in the group
        for video, prediction in ranked:
            best = max(
                range(len(own[video])),
                key=lambda i, v=video, p=prediction: (overlap(p["segment"], own[v][i]), i),
                default=None,
            )
            if best is None or overlap(prediction["segment"], own[video][best]) < threshold:
                if group_of(prediction["segment"]) == group:
                    outcomes.append(False)
            elif group_of(own[video].pop(best)) == group:
                outcomes.append(True)
        hits = [sum(outcomes[: i + 1]) / (i + 1) for i in range(len(outcomes))]
        precisions.append(sum(max(hits[i:]) for i, hit in enumerate(outcomes) if hit) / total)
    return sum(precisions) / len(precisions) if precisions else None


labelled = st.lists(st.tuples(segment, st.sampled_from("ab")), min_size=1, max_size=4)
labelled_guess = st.tuples(guess, st.sampled_from("ab")).map(lambda x: x[0] | {"label": x[1]})


@settings(max_examples=150)
@given(labelled, labelled, *[st.lists(labelled_guess, max_size=8)] * 2)
def test_precision_by_length_equals_a_step_by_step_version(first, second, guesses, more):
    both = [([0, 1], "a"), ([2, 4], "b")]
    truth = {"v": first, "w": second, "u": both}
    results = {"v": guesses, "w": more, "u": []}
    tiou, edges = [0.3, 0.6], [1, 2, 3, 4]
    found = breakdown(
        as_truth(truth), {"results": results}, subset="test", tiou=tiou, edges=edges
    ).length_precision
    assert found.shape == (5, 2)
    for group in range(5):
        for k, threshold in enumerate(tiou):
            expected = precision_of_length(truth, results, threshold, edges, group)
            assert found[group, k] == pytest.approx(expected or 0.0, abs=1e-12)


@pytest.mark.filterwarnings("ignore::etadlite.evaluation.PredictionWarning")
def test_breakdown_agrees_with_average_precision(shared):
    expected = json.loads((shared / "parity" / "evaluation.json").read_text())["thumos14"]
    files = (
        shared / "realdata" / "thumos-14" / expected["ground_truth"],
        shared / "parity" / "thumos14_noisy_predictions.json",
    )
    settings = {"subset": "test", "tiou": expected["tiou"]}
    parts = breakdown(*files, **settings, edges=(3, 6, 12, 18))
    result = mean_average_precision(*files, **settings)
    np.testing.assert_array_equal(parts.class_precision, result.per_class)
    # Both groupings count the same ground truths, and the same found ones.
    by_class = (parts.class_recall * parts.class_count[:, None]).sum(0)
    by_length = (parts.length_recall * parts.length_count[:, None]).sum(0)
    np.testing.assert_allclose(by_class, by_length)
    assert parts.class_count.sum() == parts.length_count.sum()
    assert (parts.class_recall >= parts.class_precision - 1e-12).all()


@pytest.mark.parametrize("proposals", [[], [0, 5], [1.5], 3, ["1"]])
def test_malformed_numbers_of_proposals_are_refused(proposals):
    with pytest.raises(InputError, match="proposals is"):
        average_recall(TRUTH, GUESS, subset="test", tiou=[0.5], proposals=proposals)


@pytest.mark.parametrize("edges", [(1, 2, 3), (1, 3, 2, 4), (1, 1, 2, 3), "abcd", 3])
def test_malformed_edges_are_refused(edges):
    with pytest.raises(InputError, match="edges are"):
        breakdown(TRUTH, GUESS, subset="test", tiou=[0.5], edges=edges)
