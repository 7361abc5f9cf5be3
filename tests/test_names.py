"""Names from outside: found in every form, kept inside their folder, and printed safely."""

import os
import shutil
import unicodedata
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etadlite.base.errors import InputError, damage_named, printable
from etadlite.base.names import Names, inside
from etadlite.base.tables import aligned, from_spreadsheet, spreadsheet_safe
from etadlite.data.features import find_features
from etadlite.data.video import Video
from etadlite.data.video_files import video_file
from etadlite.data.video_folders import LeftOutWarning, videos_in
from etadlite.presets import preset
from etadlite.runs.predictions import _write_csv, predict_videos


def film(path, container, codec):
    """Write a short video; the name of the file does not decide its format."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            grey = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


KINDS = {
    "00001.MTS": ("mpegts", "libx264"),
    "b.wmv": ("asf", "wmv2"),
    "c.flv": ("flv", "flv1"),
    "d.mpg": ("mpeg", "mpeg2video"),
    "e.ts": ("mpegts", "libx264"),
    "film": ("matroska", "libx264"),
    "g.of 2024": ("mp4", "libx264"),
}


def test_the_videos_of_a_folder_are_what_can_be_opened_and_the_others_are_named(tmp_path):
    for name, (container, codec) in KINDS.items():
        film(tmp_path / name, container, codec)
    (tmp_path / "labels.csv").write_text("video,start,end,label\n" * 50)
    (tmp_path / "notes.txt").write_text("words\n" * 50)
    (tmp_path / "._b.wmv").write_bytes(b"\0\5\x16\7")  # macOS leaves such files
    shutil.copy(tmp_path / "film", tmp_path / "loading.mp4.part")
    still = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24").to_image()
    still.save(tmp_path / "b.jpg")
    with pytest.warns(LeftOutWarning) as said:
        found = videos_in(tmp_path)
    assert {path.name for path in found.values()} == set(KINDS)
    (words,) = {str(warning.message) for warning in said}
    assert "4 of 11 files" in words
    for name in ("labels.csv", "notes.txt", "loading.mp4.part", "b.jpg"):
        assert name in words
    for name in KINDS:
        assert video_file(tmp_path, name.rpartition(".")[0] or name).name == name


def test_links_to_nothing_are_named(tmp_path):
    """They are what is left of data sets whose disk was moved."""
    film(tmp_path / "a.mp4", "mp4", "libx264")
    for name in ("gone.mp4", "gone.txt"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.warns(LeftOutWarning, match=r"gone\.txt \(a link to no file\)"):
        found = videos_in(tmp_path)
    assert list(found) == ["a", "gone"]
    with pytest.raises(InputError, match=r"gone\.mp4: there is no such video file"):
        Video(found["gone"])


def test_a_sound_with_a_cover_is_no_video(tmp_path):
    film(tmp_path / "a.mp4", "mp4", "libx264")
    with av.open(str(tmp_path / "song.m4a"), "w", "mp4") as container:
        sound, cover = container.add_stream("aac", rate=8000), container.add_stream("mjpeg")
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        picture.pts, wave.sample_rate = 0, 8000
        for stream, frame in ((cover, picture), (sound, wave)):
            container.mux([*stream.encode(frame), *stream.encode()])
    with pytest.warns(LeftOutWarning, match=r"song\.m4a \(no moving pictures\)"):
        assert [path.name for path in videos_in(tmp_path).values()] == ["a.mp4"]


def test_a_video_is_preferred_to_a_small_copy_beside_it_that_is_called_otherwise(tmp_path):
    film(tmp_path / "DJI_1.MP4", "mp4", "libx264")
    film(tmp_path / "DJI_1.LRF", "mp4", "libx264")
    with pytest.warns(LeftOutWarning, match=r"DJI_1\.LRF \(DJI_1\.MP4 is taken\)"):
        assert [path.name for path in videos_in(tmp_path).values()] == ["DJI_1.MP4"]
    assert video_file(tmp_path, "DJI_1").name == "DJI_1.MP4"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (unicodedata.normalize("NFD", "Übung café 1"), "Übung café 1"),
        ("Übung café 1", unicodedata.normalize("NFD", "Übung café 1")),
        ("v_abc", "abc"),
        ("abc", "v_abc"),
        ("a%20b", "a%20b"),
        ("a b", "a%20b"),
        ("a%20b", "a b"),
        ("100% done", "100% done"),
        (" a ", "a"),
        ("\uff46ull", "full"),
    ],
)
@pytest.mark.parametrize(("find", "suffix"), [(video_file, ".MP4"), (find_features, ".npy")])
def test_a_file_is_found_by_any_form_of_its_name(tmp_path, file, name, find, suffix):
    (tmp_path / f"{file}{suffix}").touch()
    assert find(tmp_path, name) == tmp_path / f"{file}{suffix}"
    assert find(tmp_path, f"{name}2") is None


@pytest.mark.parametrize(("find", "suffixes"), [
    (video_file, (".mp4", ".mkv")),
    (find_features, (".npy", ".npz")),
])  # fmt: skip
def test_two_files_of_one_name_are_refused_unless_one_is_exact(tmp_path, find, suffixes):
    first, second = (tmp_path / f"x{suffix}" for suffix in suffixes)
    first.touch()
    (tmp_path / f"v_x{suffixes[0]}").touch()
    assert find(tmp_path, "x") == first
    second.touch()
    with pytest.raises(InputError, match=r"x\.\w+ and x\.\w+ are all files of"):
        find(tmp_path, "x")
    for form in ("NFC", "NFD"):
        (tmp_path / f"v_{unicodedata.normalize(form, 'é')}{suffixes[0]}").touch()
    with pytest.raises(InputError, match="keep one of them"):
        find(tmp_path, "é")


def test_a_file_that_is_added_later_is_found(tmp_path):
    os.utime(tmp_path, (1, 1))  # the listing of a folder that has not changed is kept
    assert video_file(tmp_path, "a") is None
    (tmp_path / "a.mp4").touch()
    assert video_file(tmp_path, "a") == tmp_path / "a.mp4"
    (tmp_path / "a.mp4").unlink()
    assert video_file(tmp_path, "a") is None


OUTSIDE = ("../x", "a/../../x", "/etc/x", "..", ".", "", "a/b", r"..\x", r"C:\x", "C:x", "a\0b")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_leads_out_of_no_folder(tmp_path, name):
    for find in (inside, video_file, find_features):
        with pytest.raises(InputError, match="is no name of a file in"):
            find(tmp_path, name)
    if name:
        with pytest.raises(InputError, match="is no name of a file in"):
            preset("stickfigures").changed({"name": name})


@given(st.text())
def test_a_name_that_is_let_in_stays_in(name):
    try:
        path = inside(Path("/folder"), name)
    except InputError:
        return
    assert os.path.dirname(os.path.normpath(path)) == "/folder"


@given(st.lists(st.text(max_size=4), max_size=6), st.text(max_size=4))
def test_an_exact_name_is_always_found_and_found_alone(names, name):
    assert Names([*names, name]).like(name) == [name]


def test_the_table_of_predictions_takes_a_name_in_no_known_encoding(tmp_path):
    found = {"caf\udce9": [{"segment": [0.0, 1.0], "label": "walk", "score": 0.5}]}
    _write_csv(tmp_path / "a.csv", found)
    assert "caf\\udce9,0.000,1.000,walk,0.5000" in (tmp_path / "a.csv").read_text("utf-8")


# What is printed


def test_no_name_steers_a_terminal():
    evil = "clip\x1b]0;owned\x07\x9b2J\u202egpj\udcff"
    for text in (printable(evil), str(InputError(evil)), aligned([["a"], [evil]])):
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\udcff"} & set(text)
        assert "\\x1b]0;owned\\x07" in text
    assert printable("Übung 日本 ‍é\tx\n") == "Übung 日本 ‍é\tx\n"


@given(st.text())
def test_a_cell_is_no_formula_and_is_read_back(text):
    assert spreadsheet_safe(text)[:1] not in tuple("=+-@\t\r")
    assert from_spreadsheet(spreadsheet_safe(text)) == text or text.startswith("'")


def test_the_table_of_predictions_holds_no_formula(trained, tiny, tmp_path):
    source = tiny.data / "videos" / "validation_00000.mp4"
    (tmp_path / "in").mkdir()
    shutil.copy(source, tmp_path / "in" / "=cmd|' !A1.mp4")
    checkpoint = trained / "checkpoint.safetensors"
    predict_videos([tmp_path / "in"], checkpoint, tmp_path / "out", progress=False)
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:]
    assert rows
    assert all(row.startswith("'=cmd") for row in rows)


def test_whatever_a_reader_raises_is_one_sentence():
    for error in (
        KeyError("x"),
        OverflowError("too\nlarge"),
        AttributeError(),
        RecursionError("r"),
    ):
        with (
            pytest.raises(InputError, match=r"^F is broken \(.+\); mend it$"),
            damage_named("F is broken", "mend it"),
        ):
            raise error
    with pytest.raises(MemoryError), damage_named("F", "x"):
        raise MemoryError
