"""`etadlite evaluate`: its numbers, its JSON, its picture, and the input that it refuses."""

import json
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from etadlite.base.errors import InputError
from etadlite.cli import main, read_numbers
from etadlite.evaluation.error_analysis import breakdown
from etadlite.viz.breakdown import draw_breakdown

TRUTH = {
    "version": "1",
    "database": {
        "a": {
            "subset": "test",
            "duration": 100.0,
            "annotations": [
                {"segment": [0.0, 10.0], "label": "jump"},
                {"segment": [50.0, 90.0], "label": "$run_fast$"},
            ],
        },
        "b": {
            "subset": "test",
            "duration": 50.0,
            "annotations": [{"segment": [20.0, 30.0], "label": "jump"}],
        },
    },
}
GUESS = {
    "version": "1",
    "results": {
        "a": [
            {"segment": [0.0, 10.0], "label": "jump", "score": 0.9},
            {"segment": [50.0, 74.0], "label": "$run_fast$", "score": 0.8},
        ],
        "b": [],
    },
    "external_data": {},
}


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsys):
    """Run `etadlite evaluate` on these files: arguments -> exit code, output, errors."""
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "guess.json").write_text(json.dumps(GUESS))
    files = ("--ground-truth", tmp_path / "truth.json", "--predictions", tmp_path / "guess.json")

    def run(*arguments):
        command = ["etadlite", "evaluate", *files, "--subset", "test", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        monkeypatch.setattr(warnings, "showwarning", None)  # pytest restores it at the end
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_every_threshold_and_the_average_are_printed(evaluate):
    code, out, err = evaluate("--tiou", "0.5,0.7")
    assert (code, err) == (0, "")
    # One of two jumps is found exactly; the run is found with tIoU 24 / 40.
    assert [line.split() for line in out.splitlines()] == [
        ["mAP@0.50", "75.00"],
        ["mAP@0.70", "25.00"],
        ["average", "50.00"],
    ]


def test_ten_thresholds_by_default_and_recall_on_request(evaluate):
    code, out, _ = evaluate("--json", "--proposals", "1,5")
    assert code == 0
    scores = json.loads(out)
    assert scores["tiou"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert scores["mAP"] == pytest.approx([0.75] * 3 + [0.25] * 7)
    assert scores["average"] == pytest.approx(0.4)
    assert scores["average_recall"] == pytest.approx({"1": 1 / 3, "5": (3 * 2 / 3 + 7 / 3) / 10})


def test_blocked_videos_are_left_out(evaluate, tmp_path):
    (tmp_path / "blocked.json").write_text('["b"]')
    _, out, _ = evaluate("--tiou", "0.5", "--blocked", tmp_path / "blocked.json", "--json")
    assert json.loads(out)["mAP"] == [1.0]


def test_the_command_prints_the_numbers_of_the_official_evaluation(shared, evaluate):
    expected = json.loads((shared / "parity" / "evaluation.json").read_text())["thumos14"]
    code, out, _ = evaluate(
        *("--ground-truth", shared / "realdata" / "thumos-14" / "thumos_gt.json"),
        *("--predictions", shared / "parity" / "thumos14_noisy_predictions.json"),
        *("--tiou", "0.3:0.7:0.1", "--json"),
    )
    assert code == 0
    assert json.loads(out)["mAP"] == pytest.approx(expected["mAP"], abs=1e-6)


def test_the_breakdown_is_written_as_a_picture(evaluate, tmp_path):
    picture = tmp_path / "pictures" / "where.png"
    code, out, _ = evaluate("--breakdown", picture, "--lengths", "3,6,12,18")
    assert code == 0
    assert out.splitlines()[-1] == f"breakdown: {picture}"
    assert Image.open(picture).size[0] > 500


def test_the_analysis_of_errors_is_a_table_a_picture_and_json(evaluate, tmp_path):
    picture = tmp_path / "pictures" / "errors.png"
    code, out, err = evaluate("--tiou", "0.5,0.7", "--analyse", picture)
    assert (code, err) == (0, "")
    rows = {line.rpartition("  ")[0].split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["localisation"] == [
        "localisation",
        "25.0",
        "+0.0",
        "+0.0",
    ]  # the run at 0.7, mean of two thresholds
    assert rows["true positive"] == ["true", "positive", "75.0"]
    assert out.splitlines()[-1] == f"analysis: {picture}"
    assert Image.open(picture).size[0] > 1000
    written = json.loads(picture.with_suffix(".json").read_text())
    assert written["missed"] == pytest.approx([1 / 3, 2 / 3])
    code, out, _ = evaluate("--tiou", "0.5,0.7", "--analyse", picture, "--json")
    assert json.loads(out)["errors"] == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tiou", "0.5:0.95"), ("--tiou", "0.5:0.95", "START:STOP:STEP")),
        (("--tiou", "high"), ("--tiou", "high")),
        (("--tiou", "0.5,1.5"), ("1.5", "up to 1")),
        (("--subset", "training"), ("truth.json", "training")),
        (("--blocked", "absent.json"), ("absent.json",)),
        (("--proposals", "1.5"), ("1.5",)),
        (("--lengths", "1,2", "--breakdown", "x.png"), ("edges", "four")),
        (("--instances", "4,1", "--analyse", "x.png"), ("edges of instances", "ascending")),
    ],
)
def test_an_error_is_one_sentence(evaluate, arguments, words):
    code, out, err = evaluate(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.5:0.95:0.05", [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        ("0.3:0.7:0.1", [0.3, 0.4, 0.5, 0.6, 0.7]),
        ("0.5:0.6:0.3", [0.5]),
        ("0.5:0.5:0.1", [0.5]),
        ("0.75", [0.75]),
        ("0.5, 0.75", [0.5, 0.75]),
    ],
)
def test_numbers_are_read_without_rounding_errors(text, numbers):
    assert read_numbers(text, "numbers") == numbers


def test_a_thousand_steps_are_read_and_no_more():
    assert read_numbers("0:1:0.001", "numbers") == [n / 1000 for n in range(1001)]
    with pytest.raises(InputError, match="numbers is"):
        read_numbers("0:1.001:0.001", "numbers")


@pytest.mark.parametrize(
    "text", ["", "a", "0.5,", "1:2", "1:2:3:4", "1:2:0", "2:1:0.1", "1:2:-1", "0:1:1e-9", "0:nan:1"]
)
def test_malformed_numbers_are_refused(text):
    with pytest.raises(InputError, match="numbers is"):
        read_numbers(text, "numbers")


def test_bars_are_the_means_over_the_thresholds():
    edges = (3, 6, 12, 18)
    found = breakdown(TRUTH, GUESS, subset="test", tiou=[0.5, 0.7], edges=edges)
    figure = draw_breakdown(found, edges)
    classes, lengths = figure.axes
    # Best class first. The run is found at 0.5 only; one of two jumps is found.
    assert [bar.get_width() for bar in classes.patches] == pytest.approx([50, 50])
    # One of two jumps of 10 s is found. A prediction of 24 s takes the run of 40 s at 0.5.
    assert [bar.get_height() for bar in lengths.patches] == pytest.approx([0, 0, 50, 0, 50])
    (recall,) = lengths.lines
    assert recall.get_xdata().tolist() == [2, 4]
    assert recall.get_ydata() == pytest.approx([50, 50])
    assert [text.get_text() for text in lengths.texts] == ["none", "none", "50", "none", "50"]
    assert [tick.get_text() for tick in lengths.get_xticklabels()][2:] == [
        "M\n6-12 s\n(2)",
        "L\n12-18 s\n(0)",
        "XL\nover 18 s\n(1)",
    ]


def test_the_lengths_are_those_of_detad_for_activitynet():
    ends = [30, 30.1, 60, 60.1, 120, 120.1, 180, 180.1]
    actions = [{"segment": [0, end], "label": "run"} for end in ends]
    entries = {
        str(n): {"subset": "t", "duration": 200, "annotations": [action]}
        for n, action in enumerate(actions)
    }
    found = breakdown(
        {"database": entries}, {"results": {name: [] for name in entries}}, subset="t", tiou=[0.5]
    )
    assert found.length_count.tolist() == [1, 2, 2, 2, 1]


def test_many_classes_are_drawn_in_columns():
    rng = np.random.default_rng(0)
    annotations = [{"segment": [i, i + 1.0], "label": f"class {i:03}"} for i in range(120)]
    truth = {"database": {"v": {"subset": "t", "duration": 200.0, "annotations": annotations}}}
    items = [item | {"score": rng.random()} for item in annotations if rng.random() < 0.5]
    found = breakdown(truth, {"results": {"v": items}}, subset="t", tiou=[0.5])
    figure = draw_breakdown(found, (30, 60, 120, 180))
    *columns, _ = figure.axes
    names = [tick.get_text() for axis in columns for tick in axis.get_yticklabels()]
    assert len(columns) == 3
    assert len(set(names)) == 120
    widths = [bar.get_width() for axis in columns for bar in axis.patches]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) == pytest.approx(100 * len(items))
