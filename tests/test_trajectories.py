"""The first steps of every preset are those that were recorded, and a changed constant shows."""

import json
import sys

import pytest
from trajectories import GOLDEN, named_constants, preset_values, trajectory

from etadlite.base.errors import InputError
from etadlite.cli import main
from etadlite.presets import PRESETS
from etadlite.runs.trajectory import (
    STEPS,
    TOLERANCE,
    Trajectory,
    compare,
    deviations,
    read_trajectory,
    write_trajectory,
)
from etadlite.training import targets


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("trajectories")


def recorded(name):
    return read_trajectory(GOLDEN / f"{name}.json")


def changed(here, there):
    """The recorded settings that have another value here; new settings are none of them."""
    return {key: (here.get(key), value) for key, value in there.items() if here.get(key) != value}


LONG = ("e2e_thumos_tsp",)  # decodes every window anew


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in PRESETS]
)
def test_the_first_steps_of_a_preset_are_those_that_were_recorded(root, name):
    found = trajectory(name, root)
    assert changed(json.loads(json.dumps(dict(found.settings))), recorded(name).settings) == {}
    assert len(found.values["loss"]) == STEPS
    assert len(recorded(name).values["loss"]) == STEPS
    agree, text = compare(found, recorded(name))
    assert agree, text


def test_the_settings_of_the_presets_are_those_that_were_recorded():
    """Whole, because the trajectories shrink them."""
    known = json.loads((GOLDEN / "settings.json").read_text())
    for name, settings in preset_values().items():
        assert changed(settings, known[name]) == {}, name


def test_the_named_constants_are_those_that_were_recorded():
    """A tolerance or a share that few inputs feel, and no trajectory."""
    found = named_constants()
    assert {"training/targets.py:BOUNDARY_CELLS", "encoders/staged.py:PIXEL_MEAN"} <= found.keys()
    assert changed(found, json.loads((GOLDEN / "constants.json").read_text())) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_small_differences_grow_to_less_than_half_of_what_is_allowed(root, name):
    """Initial weights that are off by a millionth, which is more than rounding does."""
    found = deviations(trajectory(name, root, disturb=1e-6), recorded(name))
    for measure, series in found.items():
        assert max(series) < TOLERANCE[measure] / 2, measure


def test_a_changed_constant_shows_in_the_first_step(root, monkeypatch):
    monkeypatch.setattr(targets, "BOUNDARY_CELLS", 4.0)
    agree, text = compare(trajectory("anet_tsp", root), recorded("anet_tsp"))
    assert not agree
    assert "the first outside is step 1:" in text


# The comparison


def made(losses, norms=None, **settings):
    return Trajectory(settings, {"loss": losses, "gradient_norm": norms or losses})


def test_trajectories_agree_within_the_tolerance_and_the_first_step_outside_is_named():
    known = made([1.0, 2.0, 4.0])
    assert compare(made([1.0005, 2.0, 4.0]), known)[0]
    assert compare(made([1.0, 2.0]), known)[1].startswith("2 of 3 recorded steps")
    agree, text = compare(made([1.0, 2.0, 4.008], [1.0, 2.2, 5.0]), known)
    assert not agree
    assert "loss: at most 2.0e-03 apart, 1e-03 is allowed; the first outside is step 3" in text
    assert "the first outside is step 2: 2.2 here, 2 recorded" in text
    assert not compare(made([1.0, float("nan"), 4.0]), known)[0]
    with pytest.raises(InputError, match="there is no step to compare"):
        compare(made([]), known)


def test_settings_that_differ_are_named_but_not_where_files_lie():
    ours = made([1.0], seed=1, **{"data.videos": "a", "data.workers": 0})
    theirs = made([1.0], seed=0, **{"data.videos": "b", "data.workers": 2})
    agree, text = compare(ours, theirs)
    assert agree
    assert "settings that differ: seed (1 here, 0 recorded)\n" in text


def test_a_trajectory_is_read_as_it_was_written(tmp_path):
    known = made([1.0, 1 / 3], [2.0, 1e-9], seed=1)
    again = read_trajectory(write_trajectory(tmp_path / "t.json", known))
    assert again.settings == known.settings
    for measure, values in known.values.items():
        assert again.values[measure] == pytest.approx(values, rel=1e-6)
    (tmp_path / "t.json").write_text('{"settings": {}}')
    with pytest.raises(InputError, match=r"t\.json is no recorded trajectory"):
        read_trajectory(tmp_path / "t.json")


def test_the_command_compares_runs_and_ends_with_1_if_they_differ(tmp_path, monkeypatch, capsys):
    for name, losses in {"a": [3.0, 2.0], "b": [3.0, 2.0001], "c": [3.0, 2.1]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"name": "x", "training": {"epochs": 1}}')
        steps = [
            {"step": n, "epoch": n / 2, "loss": loss, "gradient_norm": 1.0}
            for n, loss in enumerate(losses, 1)
        ]
        lines = [*steps, {"step": 2, "epoch": 1, "average_mAP": 0.5}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)

    def runs(*names):
        folders = [str(tmp_path / name) for name in names]
        command = ["etadlite", "runs", *folders[:-1], "--against", folders[-1]]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().out

    code, out = runs("b", "a")
    assert (code, out.splitlines()[-1]) == (0, "they agree")
    code, out = runs("b", "c", "a")
    assert code == 1
    assert out.count("they agree") == 1
    assert "2 of 2 recorded steps" in out
    assert out.splitlines()[-1] == "they do NOT agree"
