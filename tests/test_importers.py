"""Annotations of other programs as they come: ELAN's divisions, VIA's boxes, Label Studio, CVAT."""

import json
import zipfile

import pytest

from etadlite.base.errors import InputError
from etadlite.prepare import importers
from etadlite.prepare.importers import plain_name, read_rows


def spans(rows):
    return [(row.label, row.start, row.end) for row in rows]


# ELAN

HEAD = '<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"/>'
TYPES = (
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="top"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="time" CONSTRAINTS="Time_Subdivision"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="sub" CONSTRAINTS="Symbolic_Subdivision"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="same" CONSTRAINTS="Symbolic_Association"/>'
    "</ANNOTATION_DOCUMENT>"
)


def elan(path, slots, *tiers):
    """Write an EAF file; slots are milliseconds or None, tiers are name, type, parent, items."""
    order = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="t{n}"'
        + (f' TIME_VALUE="{time}"/>' if time is not None else "/>")
        for n, time in enumerate(slots)
    )
    text = f"{HEAD}<TIME_ORDER>{order}</TIME_ORDER>"
    for name, kind, parent, items in tiers:
        above = f' PARENT_REF="{parent}"' if parent else ""
        text += f'<TIER TIER_ID="{name}" LINGUISTIC_TYPE_REF="{kind}"{above}>'
        for key, place, label in items:
            if isinstance(place[0], int):
                tag, where = "ALIGNABLE_ANNOTATION", 'TIME_SLOT_REF1="t{}" TIME_SLOT_REF2="t{}"'
            else:
                tag, where = "REF_ANNOTATION", 'ANNOTATION_REF="{}"'
                where += ' PREVIOUS_ANNOTATION="{}"' * (len(place) - 1)
            text += (
                f'<ANNOTATION><{tag} ANNOTATION_ID="{key}" {where.format(*place)}>'
                f"<ANNOTATION_VALUE>{label}</ANNOTATION_VALUE></{tag}></ANNOTATION>"
            )
        text += "</TIER>"
    path.write_text(text + TYPES)
    return path


PARENTS = ("top", "top", "", [("a1", (0, 1), "one"), ("a2", (2, 3), "two")])


def test_a_symbolic_subdivision_has_equal_parts_in_the_order_of_its_chain(tmp_path):
    parts = [
        *(("b3", ("a1", "b2"), "lower"), ("b1", ("a1",), "lift"), ("b2", ("a1", "b1"), "hold")),
        *(("b4", ("a2",), "lift"), ("b5", ("a2", "b4"), "lower")),
    ]
    halves = ("half", "sub", "part", [("c1", ("b2",), "x"), ("c2", ("b2", "c1"), "y")])
    file = elan(
        *(tmp_path / "a.eaf", (2000, 8000, 10000, 14000), PARENTS),
        *(("part", "sub", "top", parts), halves, ("gloss", "same", "part", [("d", ("b3",), "g")])),
    )
    assert sorted(spans(read_rows(file, "part")), key=lambda row: row[1]) == [
        *(("lift", 2, 4), ("hold", 4, 6), ("lower", 6, 8), ("lift", 10, 12), ("lower", 12, 14)),
    ]
    assert spans(read_rows(file, "half")) == [("x", 4, 5), ("y", 5, 6)]
    assert spans(read_rows(file, "gloss")) == [("g", 6, 8)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_borders_without_a_time_divide_it_as_elan_does(tmp_path, order):
    items = [("b1", (0, 1), "lift"), ("b2", (1, 2), "hold"), ("b3", (2, 3), "lower")]
    items = [items[number] for number in order]
    parent = ("top", "top", "", [("a1", (0, 3), "one")])
    file = elan(tmp_path / "a.eaf", (2000, None, None, 8000), parent, ("t", "time", "top", items))
    wanted = [("lift", 2, 4), ("hold", 4, 6), ("lower", 6, 8)]
    assert spans(read_rows(file, "t")) == [wanted[number] for number in order]


def test_a_border_that_a_parent_divides_is_known_to_its_children_first(tmp_path):
    # The parent's inner border lies at 4 s; the first half has two children, the second has one.
    slots = (0, None, None, 8000)
    halves = [("b1", (0, 2), "first"), ("b2", (2, 3), "second")]
    quarters = [("c1", (0, 1), "x"), ("c2", (1, 2), "y"), ("c3", (2, 3), "z")]
    file = elan(
        *(tmp_path / "a.eaf", slots, ("low", "time", "mid", quarters)),
        *(("mid", "time", "top", halves), ("top", "top", "", [("a", (0, 3), "one")])),
    )
    assert spans(read_rows(file, "mid")) == [("first", 0, 4), ("second", 4, 8)]
    assert spans(read_rows(file, "low")) == [("x", 0, 2), ("y", 2, 4), ("z", 4, 8)]


def test_what_has_no_time_at_all_is_named_with_a_remedy_for_elan(tmp_path):
    file = elan(tmp_path / "a.eaf", (None, 8000), ("top", "top", "", [("a1", (0, 1), "x")]))
    (row,) = read_rows(file)
    assert row.problem == "it is not aligned in ELAN: give it a start and an end there"


def test_a_broken_chain_and_a_circle_of_tiers_are_refused(tmp_path):
    loop = [("b1", ("a1", "b2"), "x"), ("b2", ("a1", "b1"), "y")]
    file = elan(tmp_path / "a.eaf", (0, 1, 2, 3), PARENTS, ("part", "sub", "top", loop))
    with pytest.raises(InputError, match="parts of annotation a1 do not follow one another"):
        read_rows(file, "part")
    circle = ("x", "sub", "y", [("b", ("a",), "x")]), ("y", "sub", "x", [("a", ("b",), "x")])
    with pytest.raises(InputError, match="its tiers are their own parents"):
        read_rows(elan(tmp_path / "b.eaf", (0, 1), *circle), "x")


def test_xml_may_be_in_utf_16_and_in_the_encoding_that_it_names(tmp_path):
    text = elan(
        tmp_path / "a.eaf", (0, 1000), ("top", "top", "", [("a1", (0, 1), "é")])
    ).read_text()
    (tmp_path / "a.eaf").write_text(text, encoding="utf-16")
    (tmp_path / "b.eaf").write_bytes(
        b'<?xml version="1.0" encoding="ISO-8859-1"?>' + text.encode("latin1")
    )
    named = '<?xml version="1.0" encoding="{}"?>' + text  # an editor leaves the old name in it
    (tmp_path / "c.eaf").write_text(named.format("UTF-8"), encoding="utf-16")
    (tmp_path / "d.eaf").write_text(named.format("UTF-16"), encoding="utf-8")
    (tmp_path / "e.eaf").write_text(named.format("ISO-8859-1"), encoding="utf-8-sig")
    for name in "abcde":
        assert spans(read_rows(tmp_path / f"{name}.eaf")) == [("é", 0, 1)]


def test_a_number_that_stands_twice_in_elan_is_refused(tmp_path):
    """One of both annotations would get the times of the other."""
    tiers = ("top", "top", "", [("a1", (0, 1), "x"), ("a1", (1, 2), "y")])
    elan(tmp_path / "a.eaf", (0, 1000, 2000), tiers)
    with pytest.raises(InputError, match="ANNOTATION_ID a1 stands twice"):
        read_rows(tmp_path / "a.eaf")


# VIA


def via(path, kind, options, *values):
    """A project with a segment of a second for each value of its attribute."""
    project = {
        "file": {"1": {"fname": "a.mp4"}},
        "view": {"1": {"fid_list": ["1"]}},
        "attribute": {"1": {"aname": "action", "type": kind, "options": options}},
        "metadata": {
            str(place): {"vid": "1", "z": [place, place + 1], "av": {"1": value}}
            for place, value in enumerate(values)
        },
    }
    path.write_text(json.dumps(project))
    return read_rows(path)


def test_a_choice_that_via_does_not_offer_is_no_class(tmp_path):
    options = {"0": "walk", "1": "wave"}
    rows = via(tmp_path / "a.json", 4, options, "1", "7")
    assert [row.label for row in rows if not row.problem] == ["wave"]
    assert rows[1].problem == '"7" is none of the options to choose from'
    (row,) = via(tmp_path / "b.json", 1, options, "7")  # a text
    assert (row.label, row.problem) == ("7", "")


def test_a_segment_of_via_with_more_than_two_times_is_named(tmp_path):
    path = tmp_path / "a.json"
    via(path, 1, {}, "walk", "wave")
    project = json.loads(path.read_text())
    project["metadata"]["1"]["z"] = [1, 2, 4]
    path.write_text(json.dumps(project))
    rows = read_rows(path)
    assert [row.label for row in rows if not row.problem] == ["walk"]
    assert rows[1].problem == "it has 3 times; keep its start and its end"


def test_boxes_as_older_projects_store_them_are_labels(tmp_path):
    boxes = {"0": True, "1": False, "2": True}, ["1", "2"]
    rows = via(tmp_path / "a.json", 2, {"0": "walk", "1": "wave", "2": "nod"}, *boxes)
    assert spans(rows) == [("walk", 0, 1), ("nod", 0, 1), ("wave", 1, 2), ("nod", 1, 2)]


def test_every_checked_box_of_via_is_a_label(tmp_path):
    options = {"1": "walk", "2": "wave", "3": "sit, then rise"}
    values = {"1": "1", "2": "1,2", "3": "3", "4": "walk", "5": ""}
    project = {
        "file": {"1": {"fname": "a.mp4"}},
        "view": {"1": {"fid_list": ["1"]}},
        "attribute": {"1": {"aname": "action", "type": 2, "options": options}},
        "metadata": {
            key: {"vid": "1", "z": [int(key), int(key) + 1], "av": {"1": value}}
            for key, value in values.items()
        },
    }
    (tmp_path / "a.json").write_text(json.dumps(project))
    rows = read_rows(tmp_path / "a.json")
    assert spans(rows)[:5] == [
        *(("walk", 1, 2), ("walk", 2, 3), ("wave", 2, 3), ("sit, then rise", 3, 4), ("walk", 4, 5)),
    ]
    assert [row.problem for row in rows] == [""] * 5 + ["it has no label"]


# Label Studio

TASKS = [
    {
        "id": 7,
        "data": {"video": "/data/upload/1/1a2b3c4d-clip one.mp4"},
        "file_upload": "1a2b3c4d-clip one.mp4",
        "annotations": [
            {
                "result": [
                    {
                        "type": "timelinelabels",
                        "from_name": "actions",
                        "value": {
                            "ranges": [{"start": 1, "end": 30}, {"start": 61, "end": 90}],
                            "timelinelabels": ["walk"],
                        },
                    },
                    {"type": "choices", "from_name": "good", "value": {"choices": ["yes"]}},
                ]
            },
            {"was_cancelled": True, "result": [{"from_name": "actions", "value": {}}]},
        ],
    },
    {
        "id": 8,
        "data": {"video": "/data/local-files/?d=films%2Fb.mp4"},
        "annotations": [
            {
                "result": [
                    {
                        "type": "labels",
                        "from_name": "actions",
                        "value": {"start": 1.5, "end": 2.5, "labels": ["wave", "nod"]},
                    }
                ]
            }
        ],
    },
    {"id": 9, "data": {"video": "s3://films/c.mp4?token=a/b"}, "annotations": [{"result": []}]},
]


def test_an_export_of_label_studio_is_read_as_it_comes(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(TASKS))
    rows = read_rows(tmp_path / "export.json")
    assert [row.video for row in rows] == ["1a2b3c4d-clip one"] * 2 + ["b", "b", "c"]
    assert rows[0].also == "clip one"
    # Frames count from 1, and the last one is shown to its end.
    assert spans(rows)[:4] == [
        ("walk", 0, 30),
        ("walk", 60, 90),
        ("wave", 1.5, 2.5),
        ("nod", 1.5, 2.5),
    ]
    assert [row.in_frames for row in rows] == [True, True, False, False, False]
    assert rows[4].label == ""


def test_two_people_of_label_studio_do_not_label_an_action_twice(tmp_path):
    path, (task, *_) = tmp_path / "export.json", json.loads(json.dumps(TASKS))
    first = task["annotations"][0] | {"completed_by": 1}
    other = json.loads(json.dumps(first)) | {"completed_by": {"id": 2}}
    other["result"][0]["value"]["ranges"] = [{"start": 2, "end": 31}]

    def rows_of(*annotations):
        path.write_text(json.dumps([task | {"annotations": annotations}]))
        return read_rows(path)

    (row,) = rows_of(first, other)
    assert row.problem == "2 people annotated it; mark one annotation as ground truth"
    assert spans(rows_of(first, other | {"ground_truth": True})) == [("walk", 1, 31)]
    assert len(rows_of(first, other | {"completed_by": 1})) == 3  # in two parts
    assert len(rows_of(first, other | {"was_cancelled": True})) == 2


def test_the_short_export_of_label_studio_gives_the_same(tmp_path):
    short = [
        {"video": task["data"]["video"], "id": task["id"]}
        | {"actions": [r["value"] for a in task["annotations"] for r in a["result"] if r["value"]]}
        for task in TASKS
    ]
    short[0]["actions"].pop()  # its choice is no segment
    (tmp_path / "a.json").write_text(json.dumps(TASKS))
    (tmp_path / "b.json").write_text(json.dumps(short))
    long, brief = (read_rows(tmp_path / name) for name in ("a.json", "b.json"))
    assert spans(long) == spans(brief)
    assert [row.video for row in long] == [row.video for row in brief]


def test_a_task_that_nobody_did_is_no_video_without_actions(tmp_path):
    undone = [
        {"id": 1, "data": {"video": "a.mp4"}, "annotations": []},
        {"id": 2, "data": {"video": "b.mp4"}, "annotations": [{"was_cancelled": True}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps([*undone, TASKS[2]]))
    assert [(row.video, row.label) for row in read_rows(tmp_path / "a.json")] == [("c", "")]


def test_a_segment_without_a_label_is_named(tmp_path):
    tasks = json.loads(json.dumps(TASKS))
    tasks[0]["annotations"][0]["result"][0]["value"]["timelinelabels"] = []
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    problems = [row.problem for row in read_rows(tmp_path / "a.json")]
    assert problems == ["it has no label", "it has no label", "", "", ""]


def test_of_several_controls_one_must_be_named(tmp_path):
    tasks = json.loads(json.dumps(TASKS))
    tasks[1]["annotations"][0]["result"][0]["from_name"] = "other"
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=r"controls actions, other; say with --tier"):
        read_rows(tmp_path / "a.json")
    assert [row.label for row in read_rows(tmp_path / "a.json", "other")] == ["", "wave", "nod", ""]


def shape(label, frames, last=100):
    keys = [{"frame": frame, "enabled": seen, "x": 1, "y": 1} for frame, seen in frames]
    value = {"framesCount": last, "sequence": keys, "labels": [label]}
    return {"type": "videorectangle", "from_name": "box", "value": value}


def test_a_shape_that_moves_is_an_action_while_it_is_seen(tmp_path):
    """Its video would be one without actions; where there is a timeline, it is none."""
    shapes = [shape("walk", [(11, True), (20, True), (30, False), (41, True)]), shape("wave", [])]
    task = {"id": 1, "data": {"video": "a.mp4"}, "annotations": [{"result": shapes}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([task]))
    assert spans(read_rows(path)) == [("walk", 10, 30), ("walk", 40, 100)]
    path.write_text(json.dumps([task, *TASKS]))
    assert {row.label for row in read_rows(path)} == {"", "walk", "wave", "nod"}
    assert spans(read_rows(path, "box"))[:2] == [("walk", 10, 30), ("walk", 40, 100)]


def test_the_address_of_a_video_may_have_any_name(tmp_path):
    task = json.loads(json.dumps(TASKS[1]))
    task["data"] = {"title": "Vol. 3", "source": "s3://films/clip%20one.mp4", "id": "4.7"}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    assert {row.video for row in read_rows(tmp_path / "a.json")} == {"clip one"}


# CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<meta><task><id>3</id><name>n</name><source>clip.mp4</source></task></meta>{}</annotations>"""


def track(label, frames):
    boxes = "".join(
        f'<box frame="{frame}" outside="{outside}" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2">'
        f'<attribute name="pose">{pose}</attribute></box>'
        for frame, outside, pose in frames
    )
    return f'<track id="0" label="{label}" source="manual">{boxes}</track>'


def test_tracks_of_cvat_last_while_they_are_seen(tmp_path):
    (tmp_path / "annotations.xml").write_text(
        CVAT.format(
            track("walk", [(0, 0, "up"), (30, 1, "up"), (60, 0, "up"), (75, 0, "down")])
            + track("wave", [(10, 0, ""), (11, 0, "")])
        )
    )
    rows = read_rows(tmp_path / "annotations.xml")
    assert spans(rows) == [("walk", 0, 30), ("walk", 60, 76), ("wave", 10, 12)]
    assert {row.video for row in rows} == {"clip"}
    assert all(row.in_frames for row in rows)
    posed = read_rows(tmp_path / "annotations.xml", "pose")
    assert spans(posed) == [("up", 0, 30), ("up", 60, 75), ("down", 75, 76)]


def test_a_skeleton_of_cvat_lasts_while_a_point_of_it_is_seen(tmp_path):
    frames = "".join(
        f'<skeleton frame="{frame}" keyframe="1"><points label="1" outside="{one}"/>'
        f'<points label="2" outside="{two}"/></skeleton>'
        for frame, one, two in [(10, 0, 0), (20, 1, 0), (30, 1, 1)]
    )
    body = f'<track id="0" label="walk">{frames}</track>'
    (tmp_path / "annotations.xml").write_text(CVAT.format(body))
    assert spans(read_rows(tmp_path / "annotations.xml")) == [("walk", 10, 30)]


def test_a_track_of_one_of_several_videos_is_not_given_to_the_first(tmp_path):
    tasks = "".join(
        f"<task><id>{number}</id><source>{name}.mp4</source></task>"
        for number, name in enumerate("ab")
    )
    tracks = "".join(
        track("walk", [(0, 0, ""), (9, 1, "")]).replace("<track", f"<track{of}")
        for of in (' task_id="1"', ' task_id="7"', "")
    )
    text = f"<annotations><meta><project>{tasks}</project></meta>{tracks}</annotations>"
    (tmp_path / "annotations.xml").write_text(text)
    rows = read_rows(tmp_path / "annotations.xml")
    assert [row.video for row in rows] == ["b", "", ""]
    assert [row.problem for row in rows] == ["", *["it names no video"] * 2]


def test_tags_of_cvat_last_as_long_as_frames_follow_one_another(tmp_path):
    images = "".join(
        f'<image id="{number}" name="frame_{number:06d}"><tag label="{label}"/></image>'
        for number, label in [(4, "walk"), (5, "walk"), (7, "walk"), (5, "wave")]
    )
    (tmp_path / "annotations.xml").write_text(CVAT.format(images))
    rows = read_rows(tmp_path / "annotations.xml")
    assert spans(rows) == [("walk", 4, 6), ("walk", 7, 8), ("wave", 5, 6)]


def test_an_archive_is_read_as_it_comes_and_measured_first(tmp_path, monkeypatch):
    (tmp_path / "annotations.xml").write_text(CVAT.format(track("walk", [(0, 0, ""), (9, 1, "")])))
    with zipfile.ZipFile(tmp_path / "task.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(tmp_path / "annotations.xml", "annotations.xml")
        packed.writestr("images/frame_0.png", b"")
    assert spans(read_rows(tmp_path / "task.zip")) == [("walk", 0, 9)]
    monkeypatch.setattr(importers, "LARGEST", 99)
    with pytest.raises(InputError, match=r"annotations\.xml has \d+ bytes, too many"):
        read_rows(tmp_path / "task.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4" + bytes(99))
    with pytest.raises(InputError, match=r"broken\.zip does not follow its format"):
        read_rows(tmp_path / "broken.zip")


# Tables


@pytest.mark.parametrize(
    "head",
    [
        "Video;Start frame;End frame;Label",
        "VIDEO,start_frame,END-FRAME,label",
        "file\tStartFrame\tEnd_Frame\tCLASS",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_columns_match_whatever_their_case_spaces_and_signs(tmp_path, head, encoding):
    between = next(sign for sign in ";,\t" if sign in head)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = f"{mark}{head}\n" + between.join(["é b.mp4", "30", "60", "jump"]) + "\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    (row,) = read_rows(tmp_path / "a.csv")
    assert (row.video, row.start, row.end, row.label, row.in_frames) == (
        "é b",
        30,
        60,
        "jump",
        True,
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,1,2,nan", "it has no label"),
        ('a,"1,250","2,500",jump', '"1,250" may be a whole number or a fraction'),
        ('a,"0,250","2,5",jump', ""),
        ('a,"00:00:01,250","00:00:02,500",jump', ""),
        ('a,1,2,"1,250"', ""),
    ],
)
def test_a_cell_that_says_nothing_sure_is_named(tmp_path, line, problem):
    (tmp_path / "a.csv").write_text(f"video,start,end,label\n{line}\n")
    (row,) = read_rows(tmp_path / "a.csv")
    assert row.problem.startswith(problem)
    assert bool(row.problem) == bool(problem)
    (tmp_path / "a.csv").write_text('video;start;end;label\na;1,250;"2,500";jump\n')
    assert spans(read_rows(tmp_path / "a.csv")) == [("jump", 1.25, 2.5)]


def test_a_missing_label_and_a_video_that_is_a_number_are_read_as_they_are_meant(tmp_path):
    items = '[{"video": 0, "start": 1, "end": 2, "label": %s}]'
    (tmp_path / "a.json").write_text(items % "NaN")
    assert read_rows(tmp_path / "a.json")[0].problem == "it has no label"
    (tmp_path / "a.json").write_text(items % '"jump"')
    assert [(row.video, row.problem) for row in read_rows(tmp_path / "a.json")] == [("0", "")]


def test_a_label_is_one_class_in_every_unicode_form(tmp_path):
    (tmp_path / "a.csv").write_text("video,start,end,label\na,1,2,caf\u00e9\na,3,4,cafe\u0301\n")
    assert {row.label for row in read_rows(tmp_path / "a.csv")} == {"caf\u00e9"}


def test_of_two_columns_that_may_be_the_label_one_must_be_called_so(tmp_path):
    (tmp_path / "a.csv").write_text("video,start,end,action,category\na,1,2,jump,sport\n")
    with pytest.raises(InputError, match=r'a\.csv: "action" and "category" may both.*call one'):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("video,start,end,label,category\na,1,2,jump,sport\n")
    assert [row.label for row in read_rows(tmp_path / "a.csv")] == ["jump"]


def test_frames_of_cvat_may_be_every_nth_of_the_video(tmp_path):
    """Frames are numbered as in the video."""
    images = "".join(
        f'<image id="{frame}" name="f"><tag label="walk"/></image>' for frame in (0, 5, 10, 20)
    )
    every_fifth = CVAT.replace("<source>", "<frame_filter>step=5</frame_filter><source>")
    (tmp_path / "a.xml").write_text(every_fifth.format(images))
    assert spans(read_rows(tmp_path / "a.xml")) == [("walk", 0, 15), ("walk", 20, 25)]
    (tmp_path / "b.xml").write_text(every_fifth.format(track("walk", [(0, 0, ""), (5, 0, "")])))
    assert spans(read_rows(tmp_path / "b.xml")) == [("walk", 0, 10)]


def test_a_line_whose_commas_were_not_quoted_is_named(tmp_path):
    """Its cells would be taken for those of other columns: 1 to 5 s, class 2."""
    (tmp_path / "a.csv").write_text("video,start,end,label\na.mp4,1,5,2,5,x\nb.mp4,1,2,y,,\n")
    wrong, right = read_rows(tmp_path / "a.csv")
    assert wrong.problem.startswith("it has 6 cells, but the table has 4 columns")
    assert (right.video, right.label, right.problem) == ("b", "y", "")


def test_lines_in_quotes_and_before_the_table_are_read_as_spreadsheets_do(tmp_path):
    text = 'sep=;\r\n;;;\r\nvideo;start;end;label\r\na;1;2;"two\r\nlines"\r\nb;1_0;2;y\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    first, second = read_rows(tmp_path / "a.csv")
    assert (first.label, first.where) == ("two lines", f"{tmp_path / 'a.csv'}, line 5")
    assert second.problem.startswith('start "1_0" is no time')
    (tmp_path / "a.csv").write_text('video,start,end,label\na,1,2,"x\nb,3,4,y\n')
    with pytest.raises(InputError, match="does not follow its format"):
        read_rows(tmp_path / "a.csv")


def test_a_frame_is_a_plain_number_and_seconds_count_more(tmp_path):
    """A clock's time in a column of frames was read as so many frames."""
    head = "video,start,end,start_frame,end_frame,label\n"
    (tmp_path / "a.csv").write_text(f"{head}a,,,0:25,1:05,x\na,,,25,50s,x\na,1,2,30,90,x\n")
    clock, unit, both = read_rows(tmp_path / "a.csv")
    assert clock.problem.startswith('end_frame "1:05" is no frame: write its number')
    assert unit.problem.startswith('end_frame "50s" is no frame')
    assert (both.start, both.end, both.in_frames, both.problem) == (1, 2, False, "")


def test_keys_of_an_annotation_do_not_replace_its_segment_and_its_video(tmp_path):
    item = {"segment": [1, 2], "label": "x", "start_frame": 30, "end_frame": 90, "video": "b"}
    entries = {name: {"subset": "x", "annotations": [item]} for name in ("a", "c.mp4.mp4")}
    (tmp_path / "a.json").write_text(json.dumps({"database": entries}))
    first, second = read_rows(tmp_path / "a.json")
    assert (first.video, first.start, first.end, first.in_frames) == ("a", 1, 2, False)
    assert second.video == "c.mp4"


def test_an_error_value_of_a_spreadsheet_is_no_class(tmp_path):
    (tmp_path / "a.csv").write_text("video,start,end,label\na,1,2,#N/A\n")
    assert [row.problem for row in read_rows(tmp_path / "a.csv")] == ["it has no label"]


def test_a_region_of_label_studio_without_times_is_named(tmp_path):
    region = {"type": "timelinelabels", "value": {"ranges": [], "timelinelabels": ["x"]}}
    task = {"data": {"video": "a.mp4"}, "annotations": [{"result": [region]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    assert [row.problem[:16] for row in read_rows(tmp_path / "a.json")] == ['end "" is no tim']


@pytest.mark.parametrize("label", [["walk", "wave"], {"name": "walk"}, True])
def test_a_label_that_is_no_text_is_no_class(tmp_path, label):
    items = [{"video": "a", "start": 1, "end": 2, "label": value} for value in (label, 0)]
    (tmp_path / "a.json").write_text(json.dumps(items))
    wrong, right = read_rows(tmp_path / "a.json")
    assert wrong.problem.startswith("its label is no text but ")
    assert (right.label, right.problem) == ("0", "")


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("video,start,Start,end,label\na,1,2,3,x\n")
    with pytest.raises(InputError, match=r'^\S+: the columns "start" and "Start" have the same'):
        read_rows(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a%20b.mp4", "a%20b"),
        ("file:///films/a%20b.mp4", "a b"),
        ("https://host/films/a%20b.mp4?sign=x/y.z", "a b"),
        ("/data/local-files/?d=films/a%20b.mp4", "a b"),
    ],
)
def test_escapes_are_read_in_addresses_only(written, name):
    assert plain_name(written) == name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "video,start,end,label\n" + "x" * 140_000 + ",1,2,a\n", "field larger than"),
        ("a.json", '{"database": {"a": {}, "b": {}, "a": {}}}', '"a" stands twice'),
        ("a.json", "[" * 5000, "nested too deep"),
        ("a.json", '[{"video": "a", "start": 1' + "0" * 400 + "}]", "a number of 401 digits"),
        ("a.eaf", f'{HEAD}<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="x"/></ANNOTATION_DOCUMENT>', "x"),
        ("a.xml", "<annotations/>", "is no export"),
        ("a.xml", "<annotations>", "cannot be read as CVAT's export"),
    ],
)
def test_what_a_reader_cannot_take_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}.*{words}") as error:
        read_rows(tmp_path / name)
    assert "\n" not in str(error.value)
