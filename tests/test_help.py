"""The command explains itself: help, presets, settings, the newest checkpoint, completion."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY, SMALL
from torchvision.models import resnet18

from etadlite import __version__
from etadlite.cli import app, main
from etadlite.config import ENCODERS, Settings, flat
from etadlite.course import execute
from etadlite.data.split import manifest_file
from etadlite.encoders.tiny import tiny_encoder
from etadlite.prepare import encoder_table
from etadlite.prepare.explain import PUBLISHED, explain_presets, explain_settings, setting_text
from etadlite.presets import PRESETS, preset
from etadlite.runs.checkpoints import newest_checkpoint
from etadlite.stickfigures import dataset
from etadlite.stickfigures.dataset import Size, make_dataset

VERBS = [verb.name or verb.callback.__name__.replace("_", "-") for verb in app.registered_commands]


@pytest.fixture(autouse=True)
def _terminal_of_80_columns(monkeypatch):
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def examples(text):
    """The command lines of a help, without what starts several processes."""
    after = text.partition("Example")[2].partition("\n\n")[0]
    return [
        shlex.split(line.strip())
        for line in re.findall(r"(?:torchrun .* -m )?(etadlite .*)", after)
    ]


# Help


def test_the_help_of_the_command_shows_every_verb_in_one_whole_line(etadlite):
    code, out, _ = etadlite("--help")
    assert code == 0
    listed = out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == VERBS
    assert not [line for line in listed if line.endswith("...")]
    assert len(out.splitlines()) <= 40
    assert etadlite()[2] == out  # and so does the command alone


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_screen_and_has_an_example(etadlite, verb):
    code, out, _ = etadlite(verb, "--help")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    found = examples(out)
    assert found
    assert all(words[:2] == ["etadlite", verb] for words in found)


def test_the_help_of_train_names_the_presets_and_shows_three_examples(etadlite):
    out = etadlite("train", "--help")[1]
    assert all(name in out for name in PRESETS)
    assert len(examples(out)) == 3


def test_the_version_is_shown(etadlite):
    assert etadlite("--version") == (0, f"etadlite {__version__}\n", "")


@pytest.mark.slow
def test_every_example_runs(tmp_path, monkeypatch, etadlite):
    """In a folder with little data, with presets that are shrunk, and without the notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    for size in dataset.SIZES:
        monkeypatch.setitem(dataset.SIZES, size, Size(2, 1, longest=31, pixels=32))
    small = [*SMALL, "data.decode_size=[26, 26]", "data.crop=24", "data.feature_views=1"]
    for name in ("stickfigures", "e2e_stickfigures"):
        shrunk = preset(name, small)
        monkeypatch.setitem(PRESETS, name, lambda shrunk=shrunk: shrunk)
    notebooks = []

    def instead(*arguments, **options):
        notebooks.append(arguments)
        return execute.Executed(*[tmp_path] * 3)

    monkeypatch.setattr(execute, "run_notebook", instead)
    make_dataset(tmp_path / "made", "smoke", progress=False)
    shutil.copytree(tmp_path / "made" / "videos", tmp_path / "my_videos")
    database = json.loads((tmp_path / "made" / "annotations.json").read_text())["database"]
    rows = [
        f"{name}.mp4,{action['segment'][0]},{action['segment'][1]},{action['label']}"
        for name, entry in database.items()
        for action in entry["annotations"]
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["video,start,end,label", *rows]))
    truth = {name: entry | {"subset": "test"} for name, entry in database.items()}
    (tmp_path / "G.json").write_text(json.dumps({"database": truth}))
    found = {
        name: [action | {"score": 0.5} for action in entry["annotations"]]
        for name, entry in truth.items()
    }
    (tmp_path / "P.json").write_text(json.dumps({"results": found}))
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    told = set()
    first = ["make-data", "extract", "train"]  # what the others need
    for verb in [*first, *(verb for verb in VERBS if verb not in first)]:
        for words in examples(etadlite(verb, "--help")[1]):
            quiet = ["--quiet"] if "--quiet" in etadlite(verb, "--help")[1] else []
            code, out, err = etadlite(*words[1:], *quiet)
            assert code == 0 or verb == "doctor", (words, out, err)
            assert out, words
            told.add(verb)
    assert told == set(VERBS)
    assert notebooks == [("00_quickstart", {"profile": "smoke"})]


# Settings and presets


def test_every_setting_is_explained_with_its_value_there(etadlite):
    code, out, _ = etadlite("settings", "e2e_anet_tsp", "--json")
    assert code == 0
    rows = {row["key"]: row for row in json.loads(out)}
    values = flat(preset("e2e_anet_tsp").model_dump(mode="json"))
    assert {key: row["value"] for key, row in rows.items()} == values
    assert all(row["meaning"].endswith(".") for row in rows.values())
    assert rows["training.epochs"]["allowed"] == "at least 1"
    assert rows["data.snippet_rule"]["allowed"] == "cells, ends"
    assert rows["data.crop"]["unit"] == "pixels"


@pytest.mark.parametrize("name", PRESETS)
def test_what_differs_from_the_default_is_marked(name):
    rows = {row["key"]: row for row in json.loads(explain_settings(name, as_json=True))}
    least = Settings.model_validate(
        {"name": name, "data": {"annotations": rows["data.annotations"]["value"]}}
    )
    usual = flat(least.model_dump(mode="json"))
    marked = {key for key, row in rows.items() if row["differs"]}
    assert marked == {key for key in rows if rows[key]["value"] != usual[key]}
    words = explain_settings(name)
    assert {line.split()[1] for line in words.splitlines() if line.startswith("* ")} - {
        "differs"
    } == marked
    assert not [row for row in json.loads(explain_settings(as_json=True)) if row["differs"]]


def test_the_settings_of_a_run_are_compared_with_its_preset(tmp_path):
    file = tmp_path / "config.json"
    changed = preset("e2e_stickfigures", ["training.epochs=20", "device=cpu"])
    file.write_text(changed.model_dump_json())
    rows = json.loads(explain_settings(str(file), as_json=True))
    found = {row["key"]: (row["usual"], row["value"]) for row in rows if row["differs"]}
    assert found == {"training.epochs": (12, 20), "device": ("auto", "cpu")}


@pytest.mark.parametrize("name", ["été", "a b", "0.5", "null", '"'])
def test_a_setting_as_text_is_read_back_as_it_was(name):
    changed = preset("anet_tsp", [f"data.test_subset={setting_text(name)}"])
    assert changed.data.test_subset == name
    assert [setting_text(value) for value in ("cosine", 0.5, None)] == ["cosine", "0.5", "null"]


def test_a_section_or_one_setting_is_shown(etadlite):
    lines = etadlite("settings", "anet_tsp", "sampling")[1].splitlines()
    keys = [line[2:].split()[0] for line in lines if re.match(r"[* ] \w", line)]
    assert keys == [
        f"sampling.{name}" for name in Settings.model_fields["sampling"].default.model_fields
    ]
    _, out, _ = etadlite("settings", "e2e_stickfigures", "data.decode_size")
    assert out.splitlines()[0] == "* data.decode_size = [52, 52] pixels  ([128, 171])"
    assert etadlite("settings", "training.epochs")[1].startswith("  training.epochs = 6\n")
    _, out, _ = etadlite("settings", "e2e_stickfigures", "training.schedule")
    assert out.splitlines()[0] == "* training.schedule = cosine  (step)"
    code, _, err = etadlite("settings", "anet_tsp", "trainig")
    assert (code, err.count("\n")) == (2, 1)
    assert 'there is no section "trainig"; did you mean "training"?' in err
    assert 'no preset "anet"; did you mean "anet_tsp"' in etadlite("settings", "anet")[2]


def test_the_presets_are_listed_with_what_the_readme_says_was_published(etadlite):
    entries = json.loads(etadlite("presets", "--json")[1])
    assert [entry["name"] for entry in entries] == list(PRESETS)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name, value in PUBLISHED.items():
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.rstrip("| ").rpartition("|")[2].split(",")[0].strip() == f"{value:.2f}"
    words = explain_presets()
    for entry in entries:
        assert f"{entry['name']} " in words
        assert entry["data"] in words
        assert len(entry["what"]) > 30


# JSON


@pytest.mark.slow
def test_what_a_script_wants_to_know_is_printed_as_json(
    etadlite, tiny, trained, tmp_path, monkeypatch
):
    """Every verb that prints a table and writes no report of its own."""
    verbs = {verb for verb in VERBS if "--json" in etadlite(verb, "--help")[1]}
    tables = {"check-data", "plan", "test", "runs", "evaluate", "presets", "settings", "encoders"}
    assert verbs == tables | {"doctor"}

    def record(*words):
        code, out, err = etadlite(*words, "--json")
        assert code == 0 or words[0] == "doctor", err
        return json.loads(out)

    settings = ["e2e_stickfigures", *tiny.assignments]
    checked = record("check-data", *settings, "--quiet")
    assert checked["sound"]
    assert checked["files"] == 3
    assert [split["usable"] for split in checked["splits"]] == [2, 1]
    manifest_file(tiny.data / "videos").unlink()  # the data set is shared with other tests
    planned = record("plan", *settings, "--memory", "1GB")
    parts = planned["predicted"]
    assert parts.pop("total") == sum(parts.values())
    assert "1" in planned["fits"]
    checkpoint = ("--checkpoint", trained / "checkpoint.safetensors")
    tested = record("test", *settings, *checkpoint, "--out", tmp_path, "--quiet")
    assert json.loads((tmp_path / "predictions.json").read_text())["results"]
    report = json.loads((trained / "report.json").read_text())
    (run,) = record("runs", trained)
    assert tested["average"] == pytest.approx(run["average_mAP"], abs=1e-6)
    assert (run["state"], run["problem"], run["steps"]) == ("finished", None, 1)
    assert run["seconds_per_step"] == report["seconds_per_step"]
    assert run["settings"]["data.snippets"] == 16
    assert record("runs", trained, "--against", trained)["agree"]
    monkeypatch.setattr(encoder_table, "ENCODERS", {"tiny": ENCODERS["tiny"]})
    (row,) = record("encoders")
    assert row["parameters"] == sum(p.numel() for p in tiny_encoder().parameters())
    assert (row["encoder"], row["channels"], row["weights"]) == ("tiny", 48, ["shipped"])
    assert {finding["what"] for finding in record("doctor")} >= {"torch", "PyAV", "disk"}


# The newest checkpoint


def finished_run(root, name, age, *, report=True):
    """Make a run directory with a checkpoint that is some seconds old."""
    root.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"name": name}))
    checkpoint = root / "checkpoint.safetensors"
    checkpoint.touch()
    os.utime(checkpoint, (1e9 - age, 1e9 - age))
    if report:
        (root / "report.json").touch()
    return checkpoint


def test_the_newest_checkpoint_is_taken_and_named(tmp_path, capsys):
    old = finished_run(tmp_path / "a" / "001", "a", age=30)
    new = finished_run(tmp_path / "b" / "001", "b", age=10, report=False)
    finished_run(tmp_path / "a" / "002", "a", age=40)  # a higher number, but older
    assert newest_checkpoint(root=tmp_path) == new
    said = capsys.readouterr().err
    assert said == f"checkpoint: {new} (the newest of 3; its training has not ended)\n"
    assert newest_checkpoint("a", tmp_path) == old
    assert capsys.readouterr().err == f"checkpoint: {old} (the newest of 2)\n"


def test_without_any_checkpoint_the_error_says_what_to_do(tmp_path, monkeypatch, etadlite):
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "runs" / "other" / "001", "other", age=1)
    code, _, err = etadlite("test", "e2e_stickfigures", "--checkpoint", "last")
    assert (code, err.count("\n")) == (2, 1)
    assert "runs holds no checkpoint of e2e_stickfigures: train one with etadlite train" in err
    shutil.rmtree(tmp_path / "runs")
    assert "runs holds no checkpoint: train one" in etadlite("predict", "a.mp4")[2]


# Colour and completion


class Terminal:
    """Standard error that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_messages_have_colour_on_terminals_only(monkeypatch, etadlite, no_color):
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    assert "\x1b" not in etadlite("settings", "nothing")[2]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "argv", ["etadlite", "settings", "nothing\x1b[2J"])
    with pytest.raises(SystemExit):
        main()
    assert terminal.text.count("\x1b") == (0 if no_color else 3)  # on, bold, off
    assert "error" in terminal.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [("etadlite tr", ["train"]), ("etadlite train e2e_a", ["e2e_anet_tsp"])],
)
def test_the_shell_completes_verbs_and_presets(words, expected):
    environment = os.environ | {
        "_ETADLITE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "etadlite"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == expected
