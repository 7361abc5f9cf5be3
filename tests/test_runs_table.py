"""Runs side by side: what is found, what the table says, and the curves."""

import json
import sys

import pytest
from PIL import Image

from etadlite.base.errors import InputError
from etadlite.cli import main
from etadlite.presets import preset
from etadlite.runs.table import curve_names, find_runs, runs_table
from etadlite.training.recorder import read_metrics


def make_run(folder, settings, epochs, average=None, *, finished=True):
    """Write a run directory like that of a training."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(settings.model_dump_json())
    records = [{"step": k + 1, "epoch": (k + 1) / 2, "loss": 2.0} for k in range(2 * epochs)]
    if average is not None:
        records.append({"step": 2 * epochs, "epoch": epochs, "average_mAP": average, "mAP": {}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if finished:
        report = {"average_mAP": average, "mAP": {"0.5": average}}
        report |= {"peak_activation_bytes": 3 * 2**20, "seconds_per_step": 1.5}
        (folder / "report.json").write_text(json.dumps(report))


@pytest.fixture
def runs(tmp_path):
    short = preset("e2e_stickfigures", ["training.epochs=4", "data.annotations=elsewhere.json"])
    make_run(tmp_path / "e2e_stickfigures" / "001", short, 4, 0.5)
    make_run(
        tmp_path / "e2e_stickfigures" / "002",
        short.changed(["seed=3", "sampling.snippet_ratio=1.0"]),
        *(3, 0.25),
        finished=False,
    )
    own = [short.changed(["name=mine", f"training.detector_lr={rate}"]) for rate in (1e-3, 2e-3)]
    for number, settings in enumerate(own, 1):
        make_run(tmp_path / "mine" / f"00{number}", settings, 4, 0.1 * number)
    (tmp_path / "mine" / "notes").mkdir()
    return tmp_path


def test_the_table_shows_state_score_costs_and_changed_settings(runs):
    found = find_runs([runs])
    lines = runs_table(found).splitlines()
    assert lines[0].split() == [
        *("run", "state", "average", "s/step", "minutes", "activations", "settings"),
    ]
    rows = [line.split("  ") for line in lines[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0] == [
        str(runs / "e2e_stickfigures" / "001"),
        *("finished", "50.0", "1.500", "0.2", "3.0 MiB", "training.epochs=4"),
    ]
    assert cells[1][1:3] == ["epoch 3 of 4", "25.0"]
    assert cells[1][-1] == "seed=3 sampling.snippet_ratio=1.0 training.epochs=4"
    # Of a name without a preset, the runs are told apart from one another.
    assert [row[-1] for row in cells[2:]] == [
        "training.detector_lr=0.001",
        "training.detector_lr=0.002",
    ]


def test_a_run_directory_can_be_given_itself_and_no_run_is_shown_twice(runs):
    one = runs / "e2e_stickfigures" / "002"
    assert [run.folder for run in find_runs([one, runs / "e2e_stickfigures"])] == [
        one,
        runs / "e2e_stickfigures" / "001",
    ]


def test_curves_are_named_by_the_ends_of_the_paths(runs):
    found = find_runs([runs])
    assert list(curve_names(found)) == [
        *("e2e_stickfigures/001", "e2e_stickfigures/002", "mine/001", "mine/002"),
    ]


def test_the_error_names_folders_without_runs_and_broken_runs(runs, tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="notes holds no run"):
        find_runs([runs / "mine" / "notes"])


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "config.json holds no JSON object"),
        ("report.json", "", "report.json is not JSON"),
        ("report.json", '{"mAP": 3}', "report.json is no report of a run"),
        ("metrics.jsonl", "{}\n]\n", "metrics.jsonl, line 2, is not JSON"),
        ("metrics.jsonl", '{"epoch": "x"}\n', "records of another form"),
    ],
)
def test_a_broken_run_is_named_and_hides_no_other(runs, file, content, words):
    (runs / "mine" / "001" / "report.json").unlink()  # so that records are looked at
    (runs / "mine" / "001" / file).write_text(content)
    found = find_runs([runs])
    assert [run.state for run in found].count("broken") == 1
    assert [run.state for run in found].count("finished") == 2
    assert words in runs_table(found)


def test_a_record_that_is_still_being_written_is_left_out(runs):
    file = runs / "mine" / "001" / "metrics.jsonl"
    whole = read_metrics(file.parent)
    file.write_text(file.read_text() + '{"step": 9, "ep')
    assert read_metrics(file.parent) == whole


def test_the_command_prints_the_table_and_draws_the_curves(runs, monkeypatch, capsys):
    picture = runs / "curves.png"
    monkeypatch.setattr(sys, "argv", ["etadlite", "runs", str(runs), "--picture", str(picture)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 + 4 + 1
    with Image.open(picture) as drawn:
        assert drawn.width > 800
