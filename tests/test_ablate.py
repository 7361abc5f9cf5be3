"""The study of all strategies: runs that vary in one thing, kept, and compared."""

import json
import shutil
import statistics

import pytest
from matplotlib.collections import PathCollection
from test_command import refused

from etadlite.base.errors import StoppedError
from etadlite.base.files import write_json
from etadlite.runs import ablate, side_by_side
from etadlite.training.report import RunReport, report_record
from etadlite.viz.ablation import draw_ablation


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, etadlite):
    """Run `etadlite ablate` on the tiny data: arguments -> code, output, errors."""

    def copied(root, size, **options):
        shutil.copytree(tiny.data, root, dirs_exist_ok=True)

    monkeypatch.setattr(ablate, "make_dataset", copied)
    own = [a for a in tiny.assignments if not a.startswith(("data.a", "data.v", "data.ca"))]
    return lambda *given: etadlite("ablate", *given, "--out", tmp_path, "--quiet", *own)


def pretended(settings, folder, *, progress):
    """Write the files of a run without a training."""
    sampling = settings.sampling
    average = 0.1 + 0.1 * sampling.snippet_ratio + 0.01 * settings.seed
    report = RunReport(folder, (0.5,), (average,), average, 2**20, 0.5)
    write_json(folder / "config.json", settings.model_dump(mode="json"))
    write_json(folder / "report.json", report_record(report))


def configs(folder):
    return [json.loads(path.read_text()) for path in folder.rglob("config.json")]


def test_an_ablation_varies_strategy_ratio_and_seed_and_keeps_finished_runs(
    study, tmp_path, monkeypatch
):
    monkeypatch.setattr(side_by_side, "run_training", pretended)
    arguments = ("snippets", "--strategies", "grid,gradient_norm", "--ratios", "0.5,1")
    code, out, err = study(*arguments, "--seeds", 2)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    rows = lines[lines.index("") + 3 :][:3]
    assert [row.split("  ")[0] for row in rows] == ["grid 0.5", "gradient_norm 0.5", "all"]
    assert all("15.5 ± 0.7" in row for row in rows[:2])
    assert (tmp_path / "snippets.txt").read_text().splitlines()[2:] == rows
    assert (tmp_path / "snippets.png").stat().st_size > 10_000

    sampled = [
        (c["sampling"]["snippet_strategy"], c["sampling"]["snippet_ratio"], c["seed"])
        for c in configs(tmp_path)
    ]
    kinds = [("grid", 0.5), ("gradient_norm", 0.5), ("random", 1.0)]
    assert sorted(sampled) == sorted((*kind, seed) for kind in kinds for seed in (0, 1))
    saved = json.loads((tmp_path / "snippets.json").read_text())
    assert {"torch", "device"} <= set(saved["machine"])
    assert [(r["strategy"], r["ratio"], r["seed"]) for r in saved["runs"]] == [
        ("grid", 0.5, 0),
        ("grid", 0.5, 1),
        ("gradient_norm", 0.5, 0),
        ("gradient_norm", 0.5, 1),
        ("all", 1.0, 0),
        ("all", 1.0, 1),
    ]

    monkeypatch.setattr(side_by_side, "run_training", None)  # so that any new run fails
    again = study(*arguments, "--seeds", 2)
    assert again[:2] == (0, out)


def test_proposals_are_varied_like_snippets(study, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "run_training", pretended)
    code, out, _ = study(
        "proposals", "--strategies", "scale_balanced", "--ratios", "0.2", "--seeds", 1
    )
    assert code == 0
    assert "scale_balanced 0.2" in out
    (config,) = configs(tmp_path / "proposals")
    assert config["sampling"]["proposal_strategy"] == "scale_balanced"
    assert config["sampling"]["proposal_ratio"] == 0.2
    assert config["sampling"]["snippet_strategy"] == "random"


def test_a_study_trains_and_tests(study, tmp_path):
    code, out, _ = study(
        "snippets", "--strategies", "gradient_norm", "--ratios", "0.5", "--seeds", 1
    )
    assert code == 0
    assert "gradient_norm 0.5" in out
    assert (tmp_path / "snippets" / "gradient_norm_0.5" / "seed0" / "predictions.json").exists()


def test_a_study_that_is_stopped_goes_on_with_the_same_command(study, monkeypatch):
    def stopped(settings, folder, *, progress):
        raise StoppedError("SIGTERM came", 143, folder)

    monkeypatch.setattr(side_by_side, "run_training", stopped)
    code, _, err = study("proposals", "--seeds", 1)
    assert code == 143
    command = err.splitlines()[-1]
    assert command.startswith("continue with: etadlite ablate proposals --seeds 1 ")
    assert "--resume" not in command


def test_a_study_that_is_impossible_is_refused(study, tmp_path):
    assert refused(study("frames"), '"frames"', "snippets, proposals")
    assert refused(study("snippets", "--strategies", "grid,iou_balanced"), "'iou_balanced'", "kdpp")
    assert refused(study("snippets", "--ratios", "0.5,0"), "above 0", "not 0")
    assert refused(study("proposals", "--ratios", "1.5"), "at most", "1.5")
    assert refused(study("snippets", "--ratios", "half"), "--ratios")
    varied = "sampling.snippet_ratio=0.2"
    assert refused(study("snippets", varied), "sampling.snippet_ratio", "--ratios")
    assert not configs(tmp_path)


def report(tmp_path, average, mebibytes, seconds):
    return RunReport(tmp_path, (0.5,), (average,), average, mebibytes * 2**20, seconds)


def test_the_picture_shows_means_over_seeds(tmp_path):
    runs = [report(tmp_path, 0.2, 10, 1.0), report(tmp_path, 0.4, 10, 3.0)]
    reports = {("random", 0.1): runs, ("random", 0.5): runs[:1], ("all", 1.0): runs[1:]}
    figure = draw_ablation(reports, title="study")
    memory, time = figure.axes
    for axis, costs in ((memory, [10, 10]), (time, [1.0, 2.0])):
        markers = [c for c in axis.collections if isinstance(c, PathCollection)]
        assert len(markers) == 2
        x, y = zip(*sorted(markers[0].get_offsets().tolist()), strict=True)
        assert sorted(y) == pytest.approx([20, 30])
        assert sorted(x) == pytest.approx(costs)
        assert axis.get_xlim()[0] == 0
        assert axis.get_ylim()[1] >= 30 + 100 * statistics.stdev([0.2, 0.4])
    assert "2 seeds" in figure.get_suptitle()
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["random", "all", "ratio 0.1", "ratio 0.5", "ratio 1"]
