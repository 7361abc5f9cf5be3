"""A data set of one's own: every form of annotation, every mistake, the split and the settings."""

import csv
import json
import re
import shutil
import sys
from math import isnan
from urllib.error import URLError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models
from torchvision.models.video import MC3_18_Weights

from etadlite.base.errors import InputError
from etadlite.base.weights import save_weights
from etadlite.cli import main
from etadlite.data.annotations import read_annotations
from etadlite.model.system import System
from etadlite.prepare import choose_encoder
from etadlite.prepare.choose_encoder import Wish, starting_point
from etadlite.prepare.importers import plain_name, read_rows, seconds_of
from etadlite.prepare.own_data import ImportOptions, init_dataset, split_videos
from etadlite.presets import preset
from etadlite.runs.run import run_training

# Times and names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        (7, 7.0),
        ("12,5", 12.5),
        ("1:02", 62.0),
        ("01:02.25", 62.25),
        ("1:00:02,250", 3602.25),
        (" 3 s ", 3.0),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "1:75", "1:2:3:4", "nan", "-1:20", None, True, "1.5:2"]
)
def test_what_is_no_time_is_told(text):
    assert isnan(seconds_of(text))


@given(st.integers(0, 20 * 3600 * 1000))
def test_a_clock_time_is_its_seconds(milliseconds):
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours:02d}:{minutes:02d}:{rest / 1000:06.3f}"
    assert seconds_of(text) == pytest.approx(milliseconds / 1000)


def test_a_name_loses_its_folder_and_the_suffix_of_a_video_only():
    assert plain_name("file:///C:/my%20films/day.2.MP4") == "day.2"
    assert plain_name("C:\\films\\match.2021") == "match.2021"


# Forms

ACTIONS = [("a", 1.0, 2.5, "wave"), ("a", 4.25, 6.0, "nod"), ("b", 0.5, 3.0, "wave")]


def table(path, delimiter=",", head=("video", "start", "end", "label"), rows=ACTIONS):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows])
    return path


def activitynet(path):
    database = {}
    for video, start, end, label in ACTIONS:
        entry = database.setdefault(video, {"subset": "training", "annotations": []})
        entry["annotations"].append({"segment": [start, end], "label": label})
    path.write_text(json.dumps({"database": database}))
    return path


def listed(path):
    keys = ("file", "start_s", "end_s", "class")
    path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in ACTIONS]))
    return path


ATTRIBUTES = {
    "1": {"aname": "action", "type": 4, "options": {"0": "wave", "1": "nod"}},
    "2": {"aname": "comment", "type": 1, "options": {}},
}


def via_project(path, *, comments=False):
    numbers = {"wave": "0", "nod": "1"}
    metadata = {
        f"1_{k}": {
            "vid": {"a": "1", "b": "2"}[video],
            "flg": 0,
            "z": [start, end],
            "xy": [],
            "av": {"1": numbers[label]} | ({"2": "late"} if comments else {}),
        }
        for k, (video, start, end, label) in enumerate(ACTIONS)
    }
    metadata["1_still"] = {"vid": "1", "flg": 0, "z": [2.0], "xy": [2, 1, 1, 5, 5], "av": {}}
    project = {
        "project": {"pname": "p", "vid_list": ["1", "2"]},
        "attribute": ATTRIBUTES,
        "file": {
            "1": {"fid": "1", "fname": "a.mp4", "type": 4, "loc": 1, "src": ""},
            "2": {"fid": "2", "fname": "b.mp4", "type": 4, "loc": 1, "src": ""},
        },
        "metadata": metadata,
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    }
    path.write_text(json.dumps(project))
    return path


def via_csv(path):
    numbers = {"wave": "0", "nod": "1"}
    lines = [
        "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
        "# Notes:",
        f"# ATTRIBUTE = {json.dumps(ATTRIBUTES)}",
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,"
        "metadata",
    ]
    rows = [
        (
            f"1_{k}",
            json.dumps([f"{video}.mp4"]),
            0,
            json.dumps([start, end]),
            "[]",
            json.dumps({"1": numbers[label]}),
        )
        for k, (video, start, end, label) in enumerate(ACTIONS)
    ]
    with path.open("w", newline="") as file:
        file.write("\n".join(lines) + "\n")
        csv.writer(file).writerows(rows)
    return path


def eaf(path, video, actions, *, origin=0, second=""):
    slots, items = [], []
    for number, (_, start, end, label) in enumerate(actions):
        for side, time in ((1, start), (2, end)):
            value = round(1000 * time) - origin
            slots.append(f'<TIME_SLOT TIME_SLOT_ID="t{number}{side}" TIME_VALUE="{value}"/>')
        items.append(
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" '
            f'TIME_SLOT_REF1="t{number}1" TIME_SLOT_REF2="t{number}2">'
            f"<ANNOTATION_VALUE>{label}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
        )
    origin = f' TIME_ORIGIN="{origin}"' if origin else ""
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT FORMAT="3.0" VERSION="3.0">'
        f'<HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="file:///x/{video}.mp4" '
        f'MIME_TYPE="video/mp4"{origin}/></HEADER>'
        f"<TIME_ORDER>{''.join(slots)}</TIME_ORDER>"
        f'<TIER TIER_ID="gesture" LINGUISTIC_TYPE_REF="d">{"".join(items)}</TIER>{second}'
        '<TIER TIER_ID="empty" LINGUISTIC_TYPE_REF="d"/></ANNOTATION_DOCUMENT>'
    )
    return path


def elan_folder(path):
    path.mkdir()
    eaf(path / "first.eaf", "a", ACTIONS[:2], origin=250)
    eaf(path / "second.eaf", "b", ACTIONS[2:])
    return path


FORMS = {
    "table.csv": table,
    "semicolons.csv": lambda path: table(
        path,
        ";",
        ("Filename", "Begin", "Stop", "Class"),
        [
            (f"{v}.mp4", str(s).replace(".", ","), f"0:{e:04.1f}".replace(".", ","), c)
            for v, s, e, c in ACTIONS
        ],
    ),
    "tabs.tsv": lambda path: table(path, "\t"),
    "activitynet.json": activitynet,
    "list.json": listed,
    "via.json": via_project,
    "via.csv": via_csv,
    "elan": elan_folder,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_actions(tmp_path, name):
    rows = read_rows(FORMS[name](tmp_path / name))
    assert not any(row.problem for row in rows)
    assert [(r.video, r.label) for r in rows] == [(a[0], a[3]) for a in ACTIONS]
    times = [(row.start, row.end) for row in rows]
    assert times == [pytest.approx((start, end)) for _, start, end, _ in ACTIONS]


def test_labels_of_several_tiers_or_attributes_have_to_be_chosen(tmp_path):
    second = (
        '<TIER TIER_ID="gloss" PARENT_REF="gesture"><ANNOTATION><REF_ANNOTATION '
        'ANNOTATION_ID="r1" ANNOTATION_REF="a1"><ANNOTATION_VALUE>yes</ANNOTATION_VALUE>'
        "</REF_ANNOTATION></ANNOTATION></TIER>"
    )
    elan = eaf(tmp_path / "two.eaf", "a", ACTIONS[:2], second=second)
    with pytest.raises(InputError, match=r"the tiers gesture, gloss; say with --tier"):
        read_rows(elan)
    (row,) = read_rows(elan, "gloss")  # it has the times of what it refers to
    assert (row.start, row.end, row.label) == (4.25, 6.0, "yes")
    via = via_project(tmp_path / "two.json", comments=True)
    with pytest.raises(InputError, match=r"the attributes action, comment; say with --tier"):
        read_rows(via)
    assert [row.label for row in read_rows(via, "action")] == ["wave", "nod", "wave"]


def test_an_annotation_that_refers_to_itself_has_no_times(tmp_path):
    circle = (
        '<TIER TIER_ID="gloss"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="r1" ANNOTATION_REF="r1">'
        "<ANNOTATION_VALUE>yes</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>"
    )
    (row,) = read_rows(eaf(tmp_path / "x.eaf", "a", ACTIONS[:2], second=circle), "gloss")
    assert "is not aligned in ELAN" in row.problem


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "when,what\n1,2\n", "must name the columns video, start, end and label"),
        ("a.csv", "video,start,end,label\n", "holds no annotation"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"a": 1}', "no known annotation file"),
        ("a.json", '[{"video": "a"}]', "item 0 needs video, start, end and label, but has video"),
        (
            "a.json",
            '{"metadata": {"1": {}}, "view": {}, "file": {}}',
            r"a\.json does not follow its format \(KeyError\('vid'\)\)",
        ),
        ("a.eaf", "<a>", "cannot be read as an EAF file"),
        ("a.eaf", "<a/>", "no EAF file in milliseconds"),
        ("a.xls", "", "has an unknown format"),
        (
            "a.json",
            '{"metadata": {"1": {"vid": "1", "z": [1, 2], "av": 3}}, "view": {"1": {"fid_list": '
            '["1"]}}, "file": {"1": {"fname": "a"}}}',
            "a.json does not follow its format",
        ),
        (
            "a.csv",
            "# CSV_HEADER = metadata_id\n# ATTRIBUTE = {\n1\n",
            "a.csv is not JSON",
        ),
        ("a.csv", "# CSV_HEADER\n1\n", "a.csv does not follow its format"),
        (
            "a.eaf",
            '<ANNOTATION_DOCUMENT><TIME_SLOT TIME_VALUE="x"/></ANNOTATION_DOCUMENT>',
            "a.eaf does not follow its format .*save it again from the program that wrote it",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_rows(tmp_path / name)


# The split


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4),
        st.sets(st.sampled_from("xyz"), max_size=3),
        min_size=2,
        max_size=12,
    ),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_the_split_is_the_same_whatever_the_order_and_leaves_no_side_empty(classes, share, seed):
    split = split_videos(classes, share, seed)
    assert split == split_videos(dict(reversed(classes.items())), share, seed)
    count = list(split.values()).count("validation")
    assert count == min(max(1, round(share * len(classes))), len(classes) - 1)


def test_rare_classes_come_into_both_subsets():
    classes = {f"v{k:02d}": {"often"} for k in range(20)}
    classes["v03"] = classes["v11"] = {"rare"}
    for seed in range(10):
        split = split_videos(classes, 0.1, seed)
        assert {split["v03"], split["v11"]} == {"training", "validation"}


# The whole


@pytest.fixture
def mine(tiny, tmp_path):
    """A folder of four videos, and the actions of three of them as rows of a table."""
    folder = tmp_path / "mine"
    folder.mkdir()
    database = json.loads((tiny.data / "annotations.json").read_text())["database"]
    rows = []
    for name, other in zip(database, ("one", "two", "three"), strict=True):
        shutil.copy(tiny.data / "videos" / f"{name}.mp4", folder / f"{other}.mp4")
        for item in database[name]["annotations"]:
            rows.append((other, *item["segment"], item["label"]))
    shutil.copy(tiny.data / "videos" / "training_00000.mp4", folder / "four.MP4")
    return folder, rows


@pytest.mark.slow
def test_from_a_table_to_a_training_and_a_prediction(tiny, mine, tmp_path, monkeypatch, capsys):
    folder, rows = mine
    given = table(tmp_path / "a.csv", rows=rows)

    def etadlite(*arguments):
        monkeypatch.setattr(sys, "argv", ["etadlite", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    out = etadlite("init-dataset", folder, "--annotations", given, "--encoder", "tiny")
    assert "note: 1 videos have no annotation and are left out: four" in out
    assert "3 videos (2 training, 1 validation)" in out
    assert f"etadlite train {folder / 'settings.json'}" in out
    videos = read_annotations(folder / "annotations.json")
    assert sum(len(video.actions) for video in videos.values()) == len(rows)
    assert etadlite("check-data", folder).splitlines()[-1] == "the data are fit for training"
    settings = preset(str(folder / "settings.json"), ["training.epochs=1"])
    assert (settings.name, settings.data.snippets) == ("mine", 64)
    assert settings.detector.classes == tuple(sorted({row[3] for row in rows}))
    shrunk = [a for a in tiny.assignments if not a.startswith(("data.a", "data.v", "data.ca"))]
    etadlite("train", folder / "settings.json", *shrunk, "--out", tmp_path / "runs")
    checkpoint = tmp_path / "runs" / "mine" / "001" / "checkpoint.safetensors"
    etadlite("predict", folder / "four.MP4", "--checkpoint", checkpoint, "--out", tmp_path / "p")
    assert list(json.loads((tmp_path / "p" / "predictions.json").read_text())["results"]) == [
        "four"
    ]


def start(
    mine, rows, tmp_path, head=("video", "start", "end", "label"), *, overwrite=False, **options
):
    """Runs init_dataset on the rows; gives what was said."""
    said = []
    given = table(tmp_path / "rows.csv", head=head, rows=rows)
    how = {"overwrite": overwrite, "progress": False, "log": said.append}
    init_dataset(mine[0], [given], tmp_path / "out", ImportOptions(**options), **how)
    return said


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("onee", 1, 2, "wave"), 'there is no video "onee"; did you mean "one"?'),
        (("one", 3, 2, "wave"), "wave ends at 2 s, not after its start at 3 s"),
        (("one", 3, 99, "wave"), "wave at 3-99 s lies beyond the video's end at 30."),
        (("one", -1, 2, "wave"), "wave starts before the video, at -1 s"),
        (("one", "later", 2, "wave"), 'start "later" is no time'),
        (("one", 1, 2, ""), "it has no label"),
        (("", 1, 2, "wave"), "it names no video"),
        (("broken", 1, 2, "wave"), "its video broken cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named_and_refused_or_left_out(mine, tmp_path, row, words):
    folder, rows = mine
    if row[0] == "broken":
        (folder / "broken.mp4").write_text("words")
    with pytest.raises(InputError, match="annotations or videos cannot be used, as said above"):
        start(mine, [*rows, row], tmp_path)
    assert not (tmp_path / "out").exists()
    said = start(mine, [*rows, row], tmp_path, skip=True)
    wrong = [line for line in said if line.startswith("left out: ")]
    assert any(f"rows.csv, line {len(rows) + 2}: {words}" in line for line in wrong)
    written = read_annotations(tmp_path / "out" / "annotations.json")
    assert sum(len(video.actions) for video in written.values()) == len(rows)


def test_copies_overlaps_and_single_examples_are_noted(mine, tmp_path):
    rows = [*mine[1], mine[1][0], ("two", 1, 3, "bow"), ("two", 2, 4, "bow"), ("one", 1, 2, "hop")]
    said = "\n".join(start(mine, rows, tmp_path))
    assert "note: one: 1 annotations occur twice; one of each is kept" in said
    assert "note: two: bow at 1-3 s and at 2-4 s overlap" in said
    assert "note: hop has one example" in said
    assert "note: bow occurs only in" in said


def test_classes_that_differ_in_case_and_videos_of_another_length_are_noted(mine, tmp_path):
    said = start(mine, [*mine[1], ("one", 1, 2, "hop"), ("two", 1, 2, "Hop")], tmp_path)
    words = "note: Hop and hop are two classes, which differ only in upper and lower case"
    assert any(line.startswith(words) for line in said)
    assert not any("in the annotations" in line for line in said)
    path = tmp_path / "out" / "annotations.json"
    content = json.loads(path.read_text())
    content["database"]["two"]["duration"] *= 2
    (tmp_path / "twice.json").write_text(json.dumps(content))
    said = []
    init_dataset(mine[0], [tmp_path / "twice.json"], tmp_path / "again", log=said.append)
    (note,) = (line for line in said if "in the annotations" in line)
    assert note.startswith("note: two lasts 30.1 s, but 60.1 s in the annotations: make sure")


def test_classes_that_look_the_same_are_noted(mine, tmp_path):
    rows = [("one", 1, 2, "high hop"), ("two", 1, 2, "high_hop\u200b"), ("two", 4, 5, "skip")]
    said = start(mine, [*mine[1], *rows], tmp_path)
    (note,) = (line for line in said if "are two classes" in line)
    assert note.startswith("note: high hop and high_hop\u200b are two classes")


def test_the_label_of_what_is_no_class_is_refused(mine, tmp_path):
    said = start(mine, [*mine[1], ("one", 1, 2, "Ambiguous")], tmp_path, skip=True)
    assert any('the label "Ambiguous" stands for what is no class; rename it' in s for s in said)


def test_videos_without_actions_and_videos_of_two_folders_are_noted(mine, tmp_path):
    items = [{"video": n, "start": s, "end": e, "label": c} for n, s, e, c in mine[1]]
    here, there = ({**items[0], "video": f"{day}/one.mp4"} for day in ("monday", "sunday"))
    (tmp_path / "a.json").write_text(json.dumps([*items, here, there]))
    (tmp_path / "b.json").write_text('{"database": {"four": {"subset": "x", "annotations": []}}}')
    said = []
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    init_dataset(mine[0], files, tmp_path / "out", log=said.append, progress=False)
    assert any(line.endswith("videos are used as videos without any action: four") for line in said)
    words = "note: one has annotations of a video in monday and of one in sunday: make sure"
    assert any(line.startswith(words) for line in said)


def test_frames_become_seconds_by_the_given_or_the_videos_own_rate(mine, tmp_path):
    rows = [(name, 30, 60, "wave") for name in ("one", "two")]
    head = ("video", "start_frame", "end_frame", "label")
    for fps, seconds in ((None, (2.0, 4.0)), (30, (1.0, 2.0))):
        start(mine, rows, tmp_path, head, fps=fps, overwrite=True)
        written = read_annotations(tmp_path / "out" / "annotations.json")
        assert written["one"].actions[0][:2] == pytest.approx(seconds)


def test_given_subsets_are_kept_and_partial_ones_are_not(mine, tmp_path):
    head = ("video", "start", "end", "label", "split")
    subsets = {"one": "val", "two": "Train", "three": "test"}
    start(mine, [(*row, subsets[row[0]]) for row in mine[1]], tmp_path, head)
    written = read_annotations(tmp_path / "out" / "annotations.json")
    assert {n: v.subset for n, v in written.items()} == {
        "one": "validation",
        "two": "training",
        "three": "validation",
    }
    subsets["two"] = ""
    rows = [(*row, subsets[row[0]]) for row in mine[1]]
    said = start(mine, rows, tmp_path, head, overwrite=True)
    assert any("the subsets of the annotations are not used" in line for line in said)


def test_what_is_there_is_not_overwritten_unasked(mine, tmp_path):
    start(mine, mine[1], tmp_path)
    with pytest.raises(InputError, match=r"annotations.json exists: .* --overwrite"):
        start(mine, mine[1], tmp_path)
    start(mine, mine[1], tmp_path, overwrite=True)
    own = tmp_path / "out" / "annotations.json"
    with pytest.raises(InputError, match="would replace what is read"):
        init_dataset(mine[0], [own], tmp_path / "out", overwrite=True, progress=False)


def test_an_unknown_file_of_settings_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file of settings"):
        preset(str(tmp_path / "no.json"))
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object of settings"):
        preset(str(tmp_path / "bad.json"))


# The encoder


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what is measured here: seconds a step, free GiB, what is installed."""

    def means(seconds: float, gigabytes: float, *, lite: bool = True) -> None:
        monkeypatch.setattr(choose_encoder, "seconds_per_step", lambda settings: seconds)
        monkeypatch.setattr(choose_encoder, "free_memory", lambda device: gigabytes * 2**30)
        monkeypatch.setattr(choose_encoder, "find_spec", lambda package: lite)

    return means


def chosen(mine, tmp_path, encoder=None, weights=None):
    """The settings that init_dataset writes, and its sentence on the encoder."""
    said = start(mine, mine[1], tmp_path, overwrite=True, encoder=Wish(encoder, weights))
    (why,) = [line for line in said if line.startswith("encoder.name")]
    return preset(str(tmp_path / "out" / "settings.json")), why


LITE0 = "timm:tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("seconds", "gigabytes", "lite", "name", "words"),
    [
        (2.5, 8, True, LITE0, "a step takes about 2.5 s here, so the training about 10 minutes, "),
        (2.5, 8, True, LITE0, "and 8.0 GiB of memory are free"),
        (60, 8, True, "tiny", f"with {LITE0} a step takes about 60 s here, so the training about"),
        (60, 8, True, "tiny", f"--encoder {LITE0} takes it nevertheless"),
        (2.5, 3, True, "tiny", "3.0 GiB of memory are free; --encoder"),
        (2.5, 8, False, "tiny", r'pip install "etadlite\[lite\]" for one that has seen'),
    ],
)
def test_the_encoder_is_chosen_by_what_the_machine_can_do(
    mine, tmp_path, machine, seconds, gigabytes, lite, name, words
):
    machine(seconds, gigabytes, lite=lite)
    settings, why = chosen(mine, tmp_path)
    assert settings.training.epochs == 100
    steps = 100 * 2 // settings.training.batch_size  # two videos are trained
    assert settings.encoder.name == name
    words = words.replace("10 minutes", f"{round(seconds * steps / 60)} minutes")
    assert re.search(words, why), why
    base = preset("real_small" if name == LITE0 else "e2e_stickfigures")
    assert settings.encoder == base.encoder
    assert (settings.data.frames, settings.data.crop) == (base.data.frames, base.data.crop)
    assert settings.detector.in_channels == base.detector.in_channels
    assert settings.data.flip is False


def test_tsps_encoder_is_chosen_where_its_weights_are_given_and_the_machine_is_fast(
    mine, tmp_path, machine
):
    file = tmp_path / "tsp.safetensors"
    metadata = {"family": "TSP", "encoder": json.dumps({"depth": 34, "own_planes": True})}
    save_weights(file, nn.Linear(1, 1), metadata)
    machine(1, 64)
    settings, why = chosen(mine, tmp_path, weights=str(file))
    assert (settings.encoder.name, settings.encoder.weights) == ("r2plus1d_34", file)
    assert (settings.data.frames, settings.detector.in_channels) == (16, 512)
    assert "r2plus1d_34: a step takes about 1 s here" in why
    machine(1000, 64)
    assert chosen(mine, tmp_path, weights=str(file))[0].encoder.name == "tiny"
    save_weights(file, nn.Linear(1, 1), {})
    with pytest.raises(InputError, match="say whose weights these are, as --encoder NAME"):
        chosen(mine, tmp_path, weights=str(file))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r3d_81", 'there is no such encoder; did you mean "r3d_18"'),
        ("r2plus1d_34", "r2plus1d_34 has TSP's weights alone: give their file as --weights FILE"),
        ("image:resnet81", 'no image network "resnet81"; did you mean "resnet'),
        ("mc3_18", "cannot be fetched .*connect to the network, or give a file"),
        ("nowhere:factory", "encoder.name=nowhere:factory cannot be imported"),
    ],
)
def test_an_encoder_that_cannot_train_is_refused_and_nothing_is_written(
    mine, tmp_path, monkeypatch, name, message
):
    def unreachable(self, **options):
        raise URLError("no route")

    monkeypatch.setattr(MC3_18_Weights, "get_state_dict", unreachable)
    with pytest.raises(InputError, match=message):
        chosen(mine, tmp_path, name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("image:mobilenet_v3_small", 4),
        pytest.param("image:convnext_tiny", 4, marks=pytest.mark.slow),
        ("r2plus1d_18", 16),
    ],
)
def test_a_named_encoder_comes_with_settings_that_fit_it(tmp_path, name, frames):
    settings = starting_point(name, "mine.safetensors")
    assert settings.data.frames == frames
    System(settings, pretrained=False)  # refuses what does not fit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image:mobilenet_v3_small", LITE0])
def test_what_is_written_trains_as_it_stands(mine, tmp_path, name):
    weights = None
    if name != LITE0:
        weights = str(tmp_path / "published.safetensors")
        network = models.get_model(name.partition(":")[2], weights=None)
        save_weights(weights, network, {})
    settings, _ = chosen(mine, tmp_path, name, weights)
    few = {"data.snippets": 8, "detector.max_duration": 8} if name == LITE0 else {}
    settings = settings.changed({"training.epochs": 1, **few})
    report = run_training(settings, tmp_path / "run", progress=False)
    assert report.skipped_steps == 0
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
