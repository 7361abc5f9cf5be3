"""The scripts that get the data: downloads over a bad line, conversion, THUMOS-14's annotations."""

import errno
import functools
import hashlib
import io
import json
import math
import multiprocessing
import operator
import os
import shutil
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import convert_videos
import download
import h5py
import make_film
import make_thumos_annotations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transfer import Patience, fetch, unpack

from etadlite.base.errors import InputError
from etadlite.data.video import Video, read_frames
from etadlite.prepare.isolated import Outcome, in_processes
from etadlite.presets import preset

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8))
QUICK = Patience(attempts=3, timeout=3.0, wait=0.0)


class Server(ThreadingHTTPServer):
    """Serves `content` under every path; what it does with a request is the next of `tricks`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.over = threading.Event()
        self.again()

    def again(self, content=CONTENT, tricks=()):
        self.content, self.tag, self.tricks = content, '"1"', list(tricks)
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        trick = self.server.tricks.pop(0) if self.server.tricks else {}
        if change := trick.get("change"):
            self.server.content, self.server.tag = change, '"2"'
        content, status, start = self.server.content, trick.get("status", 200), 0
        asked = self.headers.get("Range")
        same = trick.get("ignore_condition") or self.headers.get("If-Range") == self.server.tag
        if status == 200 and asked and same and not trick.get("ignore_range"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(content) else 416
        body = content[start:] if status in (200, 206) else b""
        self.send_response(status)
        for name, value in trick.get("headers", {}).items():
            self.send_header(name, value)
        if status == 206:
            whole = len(content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if not trick.get("no_tag"):
            self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: trick.get("cut", len(body))])
        if trick.get("stall"):
            self.wfile.flush()
            self.server.over.wait()


@pytest.fixture(scope="module")
def running():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(running):
    running.again()
    return running


def get(server, target, **options):
    options = {"patience": QUICK, "progress": False} | options
    return fetch(f"{server.url}/file", target, **options)


def alone(target):
    """Whether there is nothing beside a file: no part, no state."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


# Downloads


def test_a_file_arrives_whole_and_is_not_fetched_again(server, tmp_path):
    target = tmp_path / "file"
    checks = {"size": len(CONTENT), "checksum": f"md5:{hashlib.md5(CONTENT).hexdigest()}"}
    assert get(server, target, **checks)
    assert target.read_bytes() == CONTENT
    assert alone(target)
    assert not get(server, target, **checks)
    assert len(server.requests) == 1


LATER = CONTENT[::-1] + b"more"


@pytest.mark.parametrize(
    ("tricks", "expected", "ranges"),
    [
        ([{"cut": 20_000}], CONTENT, [None, "bytes=20000-"]),
        ([{"cut": 20_000, "stall": True}], CONTENT, [None, "bytes=20000-"]),
        ([{"cut": 20_000}, {"cut": 10_000}], CONTENT, [None, "bytes=20000-", "bytes=30000-"]),
        ([{"cut": 20_000}, {"ignore_range": True}], CONTENT, [None, "bytes=20000-"]),
        ([{"cut": 20_000}, {"change": LATER}], LATER, [None, "bytes=20000-"]),
        (
            [{"cut": 20_000}, {"change": LATER, "ignore_condition": True}],
            LATER,
            [None, "bytes=20000-", None],
        ),
        (
            [{"cut": 20_000}, {"change": CONTENT[:900], "ignore_condition": True}],
            CONTENT[:900],
            [None, "bytes=20000-", None],
        ),
        ([{"status": 500}, {"status": 503}], CONTENT, [None] * 3),
        ([{"status": 429, "headers": {"Retry-After": "0"}}], CONTENT, [None] * 2),
        ([{"cut": 20_000}, {"status": 502}], CONTENT, [None, "bytes=20000-", "bytes=20000-"]),
    ],
    ids=[
        "cut",
        "stalled",
        "cut twice",
        "ranges ignored",
        "changed",
        "changed, condition ignored",
        "shortened",
        "errors",
        "too many requests",
        "error between",
    ],
)
def test_a_bad_line_ends_with_the_right_file(server, tmp_path, tricks, expected, ranges):
    server.again(tricks=tricks)
    target = tmp_path / "file"
    assert get(server, target)
    assert target.read_bytes() == expected
    assert alone(target)
    assert [headers.get("Range") for _, headers in server.requests] == ranges


@given(cuts=st.lists(st.integers(0, 30_000), max_size=6))
@settings(max_examples=12)
def test_wherever_a_line_breaks_the_file_is_the_same(running, tmp_path_factory, cuts):
    running.again(tricks=[{"cut": cut} for cut in cuts])
    target = tmp_path_factory.mktemp("cuts") / "file"
    assert get(running, target, patience=Patience(attempts=20, timeout=5, wait=0))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("trick", "message", "requests", "options"),
    [
        ({"status": 404}, "404 Not Found; the address may have moved", 1, {}),
        ({"status": 403}, "403", 1, {}),
        ({"status": 500}, "failed 3 times in a row.*500", 3, {}),
        ({"cut": 0}, "failed 3 times in a row.*broke off", 3, {}),
        ({"cut": 0, "stall": True}, "failed 3 times.*not answer in time", 3, {}),
        ({}, "has 50,000 bytes, but the file has 7", 1, {"size": 7}),
        ({}, "not the expected one: its sha256", 2, {"checksum": "sha256:00ff"}),
        ({"headers": {"Content-Type": "text/html"}}, "web page instead of the file", 1, {}),
    ],
)
def test_what_cannot_be_had_is_said_and_leaves_nothing(
    server, tmp_path, *, trick, message, requests, options
):
    server.again(tricks=[trick] * 9)
    target = tmp_path / "file"
    with pytest.raises(InputError, match=message):
        get(server, target, **options)
    assert not target.exists()
    assert len(server.requests) == requests
    assert all(path.name.startswith("file.part") for path in tmp_path.iterdir())


def test_a_later_call_continues_what_an_earlier_one_left(server, tmp_path):
    server.again(tricks=[{"cut": 123}])
    target = tmp_path / "file"
    with pytest.raises(InputError, match="123 bytes are kept in .*run this again to continue"):
        get(server, target, patience=QUICK._replace(attempts=1))
    assert get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=123-"


def test_a_part_of_unknown_version_is_not_continued(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"of another file")
    assert get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_corrupted_continuation_is_fetched_anew(server, tmp_path):
    server.again(tricks=[{"cut": 20_000, "change": LATER}, {"change": LATER[::-1]}])
    server.tag = '"1"'
    target = tmp_path / "file"
    server.tricks[1] |= {"ignore_condition": True}  # same length, other bytes: only a sum tells
    wanted = f"sha256:{hashlib.sha256(LATER[::-1]).hexdigest()}"
    assert get(server, target, checksum=wanted)
    assert target.read_bytes() == LATER[::-1]


def test_a_file_that_is_there_but_wrong_is_not_touched(server, tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="it has 4 bytes instead of 50,000; move it away"):
        get(server, target, size=len(CONTENT))
    assert target.read_bytes() == b"mine"
    assert not server.requests


def test_a_full_disk_is_said_before_the_download(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="has 10 bytes left, but 50,000 are still to come"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_disk_that_fills_up_is_said_even_where_no_report_can_be_written(
    server, tmp_path, monkeypatch
):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.part").symlink_to("/dev/full")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "write_json", full)
    source = download.Source("a", "set/a", f"{server.url}/a")
    with pytest.raises(InputError, match=r"the disk of .*set is full; 0 bytes are kept in .*part"):
        download.download(tmp_path, (source,), patience=QUICK, progress=False)
    (tmp_path / "set" / "a.part").unlink()
    with pytest.raises(InputError, match=r"download\.json cannot be written \(No space left"):
        download.download(tmp_path, (source,), patience=QUICK, progress=False)


# Archives


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ARRAYS = {f"v_{name}": np.full((3, 4), number, "float32") for number, name in enumerate("abc")}


def pack(path):
    files = {f"set/features/{name}.npy": saved(array) for name, array in ARRAYS.items()}
    files |= {"set/readme.txt": b"hello"}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as archive:
            for name, array in ARRAYS.items():
                archive[name] = array
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.h5"])
def test_an_archive_is_unpacked_into_one_folder(tmp_path, name):
    archive, folder = pack(tmp_path / name), tmp_path / "features"
    assert unpack(archive, folder) == 3
    for video, array in ARRAYS.items():
        assert np.array_equal(np.load(folder / f"{video}.npy"), array)
    assert len(list(folder.iterdir())) == 3
    (folder / "v_a.npy").write_bytes(b"short")
    kept = (folder / "v_b.npy").stat().st_mtime_ns
    assert unpack(archive, folder) == 3
    assert np.array_equal(np.load(folder / "v_a.npy"), ARRAYS["v_a"])
    assert (folder / "v_b.npy").stat().st_mtime_ns == kept


def test_no_member_of_an_archive_leads_out_of_the_folder(tmp_path):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as packed:
        for name, kind in (("../../out.npy", tarfile.REGTYPE), ("link.npy", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            packed.addfile(entry, io.BytesIO())
    assert unpack(archive, tmp_path / "in" / "features") == 1
    assert [path.name for path in (tmp_path / "in" / "features").iterdir()] == ["out.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.tar"]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.h5"])
def test_a_broken_archive_is_named(tmp_path, name):
    archive = pack(tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:-250])
    with pytest.raises(InputError, match=f"{name} cannot be unpacked"):
        unpack(archive, tmp_path / "features")


# The table of sources


def test_one_failure_keeps_no_other_source_waiting(server, tmp_path, capsys):
    archive = pack(tmp_path / "features.tar.gz").read_bytes()
    server.again(archive, [{}, {"status": 404}])
    sources = (
        download.Source("a", "set/a.tar.gz", "unused", unpack="set/features", files=3),
        download.Source("b", "set/b", "unused"),
        download.Source("c", "set/c", "unused", size=len(archive)),
    )
    root = tmp_path / "data"
    options = {"mirror": f"{server.url}/copy/", "patience": QUICK, "progress": False}
    report = download.download(root, sources, **options)
    assert {name: entry["state"] for name, entry in report.items()} == {
        "a": "downloaded",
        "b": "failed",
        "c": "downloaded",
    }
    assert report["a"]["files"] == 3
    assert "404" in report["b"]["reason"]
    assert [path for path, _ in server.requests] == [f"/copy/{s.path}" for s in sources]
    assert json.loads((root / "download.json").read_text()) == report
    report = download.download(root, sources, **options)
    assert [entry["state"] for entry in report.values()] == ["there", "downloaded", "there"]
    assert len(server.requests) == 4
    (root / "set" / "features" / "v_a.npy").unlink()
    assert download.download(root, sources, **options)["a"]["files"] == 3
    assert (root / "set" / "features" / "v_a.npy").exists()


def test_the_command_reports_and_fails_where_something_is_missing(server, tmp_path, capsys):
    server.again(tricks=[{"status": 404}])
    with pytest.raises(SystemExit, match="1 of 1 failed: run this again to continue"):
        download.main(tmp_path, only=["thumos-i3d"], mirror=server.url, progress=False)
    out = capsys.readouterr().out
    assert "thumos-i3d" in out
    assert "404" in out
    assert "cannot be downloaded without asking" in out
    with pytest.raises(SystemExit, match="there is no source nothing; there are anet-annotations"):
        download.main(tmp_path, only=["nothing"])


def test_the_table_of_sources_agrees_with_the_real_files(shared):
    names = [source.name for source in download.SOURCES]
    assert len(set(names)) == len({source.path for source in download.SOURCES}) == len(names)
    real = {path.name: path for path in (shared / "realdata").rglob("*")}
    compared = 0
    for source in download.SOURCES:
        kind, _, digits = (source.checksum or "md5:").partition(":")
        assert set(digits) <= set("0123456789abcdef")
        path = real.get(source.path.rpartition("/")[2])
        if path:
            content = path.read_bytes()
            assert source.size == len(content)
            assert hashlib.new(kind, content).hexdigest() == digits
            compared += 1
    assert compared == 7


def test_the_list_names_every_source_and_who_to_ask(capsys):
    download.main(show=True)
    out = capsys.readouterr().out
    assert all(source.name in out for source in download.SOURCES)
    assert all(what in out for what in ("THUMOS14/download.html", "docs.google.com/forms"))


def test_what_is_asked_for_and_made_lies_where_the_presets_look():
    told = "\n".join([*(how for _, how in download.ASK), *download.NEXT]).format(root="data")
    paths = [source.path for source in download.SOURCES] + [
        source.unpack for source in download.SOURCES if source.unpack
    ]
    for name in ("anet_tsp", "e2e_anet_tsp", "thumos_i3d", "e2e_thumos_tsp"):
        settings = preset(name)
        for where in (settings.data.videos, settings.data.features, settings.encoder.weights):
            there = where and str(where.relative_to("data"))
            assert not there or there in paths or there in told
    weights = [word for line in download.NEXT for word in line.split() if word.endswith(".pth")]
    assert [word.removeprefix("{root}/") for word in weights] == [
        path for path in paths if path.endswith(".pth")
    ]


# Processes that may be lost


def test_a_process_that_dies_or_fails_costs_its_item_only():
    call = functools.partial
    items = [call(math.sqrt, n * n) for n in range(5)]
    items[1:1] = [call(os._exit, 3), call(math.sqrt, -1)]
    found = list(in_processes(operator.call, items, workers=2, seconds=600))
    assert len(found) == len(items)
    assert sorted(o.result for o in found if not o.error) == [0, 1, 2, 3, 4]
    errors = {outcome.item.func: outcome.error for outcome in found if outcome.error}
    assert errors[os._exit] == "its process died (exit code 3)"
    assert errors[math.sqrt] == "ValueError: math domain error"


def test_a_process_that_hangs_is_ended():
    hanging = threading.TIMEOUT_MAX
    (found,) = in_processes(time.sleep, [hanging / 10], workers=1, seconds=0.1)
    assert found.error == "it took longer than 0.1 s"


class SlowToStart:
    """A function whose process takes a second to start."""

    def __getstate__(self):
        return {"seconds": 1.0}

    def __setstate__(self, state):
        time.sleep(state["seconds"])

    def __call__(self, item):
        return abs(item)


@pytest.mark.slow
def test_the_time_limit_of_a_video_leaves_out_the_start_of_its_process():
    (found,) = in_processes(SlowToStart(), [-7], workers=1, seconds=0.5)
    assert found == (-7, 7, "")


def test_closing_the_iterator_ends_the_processes_and_takes_no_further_item():
    taken = []
    items = (taken.append(n) or seconds for n, seconds in enumerate([0.0, 1e6, 1e6, 1e6]))
    work = in_processes(time.sleep, items, workers=2, seconds=1e6)
    assert next(work).item == 0.0
    assert taken == [0, 1]
    assert len(multiprocessing.active_children()) == 2
    work.close()
    assert taken == [0, 1]
    assert not multiprocessing.active_children()


# Conversion


def film(path, frames=60, fps=30, size=(96, 64), codec="mpeg4"):
    """A video whose frame k is all of the grey 4 k."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 4 * number % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode(None))
    return path


def greys(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]


@pytest.mark.parametrize(("fps", "nearest"), [(30, lambda k: 2 * k), (15, lambda k: k)])
def test_converted_videos_show_the_nearest_frames(tmp_path, fps, nearest):
    source = film(tmp_path / "a.avi", frames=fps * 2, fps=fps)
    target = tmp_path / "out" / "a.mp4"
    made = convert_videos.convert(convert_videos.Job(source, target), 15, 32)
    assert (made.frames, made.duration, made.damaged, made.new) == (30, 2.0, 0, True)
    info = Video(target).info
    assert (info.fps, info.width, info.height) == (15, 48, 32)
    assert np.allclose(greys(target), [4 * nearest(k) for k in range(30)], atol=2)


def test_a_rate_that_does_not_divide_keeps_its_time(tmp_path):
    source = film(tmp_path / "a.mp4", frames=50, fps=25, size=(64, 96))
    target = tmp_path / "b.mp4"
    convert_videos.convert(convert_videos.Job(source, target), 15, 32)
    info = Video(target).info
    assert (info.width, info.height) == (32, 48)
    assert info.duration == pytest.approx(2.0, abs=1 / 15)
    before, after = greys(source), greys(target)
    for number, grey in enumerate(after):
        assert abs(grey - before[min(round(number * 25 / 15), 49)]) < 6


@pytest.mark.slow
def test_a_folder_is_converted_around_what_is_broken_and_continued(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "more").mkdir(parents=True)
    film(raw / "a.mp4")
    film(raw / "more" / "b.mp4")
    whole = film(raw / "cut.mp4").read_bytes()
    (raw / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (raw / "empty.mp4").touch()
    (raw / "text.mkv").write_text("no video")
    (raw / "notes.txt").write_text("not asked")
    options = {"short_side": 32, "workers": 2, "progress": False}
    report = convert_videos.convert_all(raw, out, **options)
    assert report["converted"].keys() == {"a.mp4", "b.mp4"}
    assert report["broken"].keys() == {"cut.mp4", "empty.mp4", "text.mkv"}
    assert all(name in why for name, why in report["broken"].items())
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "b.mp4"]
    stored = json.loads(convert_videos.report_file(out).read_text())
    assert stored == {"fps": 15, "short_side": 32, **report}

    kept = (out / "a.mp4").stat().st_mtime_ns
    half = (out / "b.mp4").read_bytes()
    (out / "b.mp4").write_bytes(half[: len(half) // 2])
    again = convert_videos.convert_all(raw, out, **options)
    assert again["skipped"].keys() == {"a.mp4"}
    assert again["converted"] == {"b.mp4": report["converted"]["b.mp4"]}
    assert (out / "a.mp4").stat().st_mtime_ns == kept
    assert Video(out / "b.mp4").info.frames == 30


@pytest.mark.slow
def test_a_damaged_video_is_converted_and_its_damage_reported(shared, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    shutil.copy(shared / "realdata" / "videos" / "corrupted.mp4", raw)
    for kind in ("converted", "skipped"):  # the second run remembers
        options = {"short_side": 64, "workers": 1, "progress": False}
        report = convert_videos.convert_all(raw, out, **options)
        entry = {"frames": 75, "duration": 5.0, "damaged_frames": 1}
        assert report[kind] == {"corrupted.mp4": entry}
        assert not report["broken"]


@pytest.mark.usefixtures("writes_rotation")
def test_a_video_stored_on_its_side_is_turned_upright(tmp_path):
    source = film(tmp_path / "a.mp4", size=(96, 64))
    with av.open(str(source)) as given, av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(90)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    job = convert_videos.Job(tmp_path / "b.mp4", tmp_path / "c.mp4")
    assert convert_videos.convert(job, 15, 32).frames == 30
    info = Video(job.target).info
    assert (info.width, info.height) == (32, 48)
    assert not convert_videos.convert(job, 15, 32).new


@pytest.mark.usefixtures("writes_rotation")
def test_an_upright_picture_shows_what_a_player_shows(tmp_path):
    halves = np.zeros((64, 96, 3), np.uint8)
    halves[:, :48] = 200  # bright on the left
    for degrees, bright in ((90, np.s_[24:]), (-90, np.s_[:24]), (180, np.s_[:, 24:])):
        path = tmp_path / f"{degrees}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=15)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            stream.set_display_rotation(degrees)
            for _ in range(30):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(halves, "rgb24")))
            out.mux(stream.encode(None))
        upright = read_frames(path, np.array([4]), (48, 32) if degrees != 180 else (32, 48))[0]
        job = convert_videos.Job(path, tmp_path / "out" / path.name)
        convert_videos.convert(job, 15, 32)
        with av.open(str(job.target)) as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert picture[bright].mean() > 150
        assert np.abs(picture.transpose(2, 0, 1) - upright.numpy().astype(int)).mean() < 12


def test_a_full_disk_ends_a_conversion_and_is_no_videos_fault(tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for folder in (raw, out):
        folder.mkdir()
    jobs = [convert_videos.Job(film(raw / f"{name}.mp4"), out / f"{name}.mp4") for name in "ab"]
    (out / f"a.{os.getpid()}.part.mp4").symlink_to("/dev/full")
    with pytest.raises(convert_videos.DiskFullError, match=r"a\.mp4: the disk is full") as error:
        convert_videos.convert(jobs[0], 15, 32)
    assert not list(out.iterdir())
    full = Outcome(jobs[0], error.value)
    monkeypatch.setattr(convert_videos, "in_processes", lambda *_, **__: (o for o in (full, None)))
    with pytest.raises(InputError, match="a.mp4: the disk is full; make room and run this again"):
        convert_videos.convert_all(raw, out, progress=False)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_earlier_runs_reported(shared, tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    shutil.copy(shared / "realdata" / "videos" / "corrupted.mp4", raw)
    options = {"short_side": 64, "workers": 1, "progress": False}
    first = convert_videos.convert_all(raw, out, **options)["converted"]

    def interrupted(*_, **__):
        (out / "x.1.part.mp4").touch()
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch:
        patch.setattr(convert_videos, "in_processes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert_videos.convert_all(raw, out, **options)
    assert [path.name for path in out.iterdir()] == ["corrupted.mp4"]
    assert json.loads(convert_videos.report_file(out).read_text())["not reached"] == first
    assert convert_videos.convert_all(raw, out, **options)["skipped"] == first


def test_two_videos_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / "x.mp4").touch()
    with pytest.raises(InputError, match=r"would both become x\.mp4"):
        convert_videos.jobs_of(tmp_path / "raw", tmp_path / "out")
    for folder, words in (("nowhere", "no such folder"), (".", None)):
        with pytest.raises(InputError, match=words):
            convert_videos.jobs_of(tmp_path / folder / "raw" / "none", tmp_path)


# THUMOS-14


@pytest.fixture
def thumos(shared, tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    for path in (shared / "realdata" / "thumos-14").glob("*.csv"):
        shutil.copyfile(path, folder / path.name)
    return folder


def test_thumos_annotations_are_the_published_ones(thumos, shared, capsys):
    make_thumos_annotations.main(thumos)
    published = shared / "realdata" / "thumos-14" / "thumos_14_anno.json"
    assert (thumos / "thumos_14_anno.json").read_bytes() == published.read_bytes()
    out = capsys.readouterr().out
    assert "200 videos" in out
    assert "213 videos" in out
    assert "188 of them Ambiguous" in out


def test_thumos_actions_are_those_that_numbers_are_scored_on(thumos, shared):
    made = make_thumos_annotations.thumos_annotations(thumos)["database"]
    truth = json.loads((shared / "realdata" / "thumos-14" / "thumos_gt.json").read_text())
    subsets = {"training": "train", "validation": "test"}
    for name, video in truth["database"].items():
        assert subsets[made[name]["subset"]] == video["subset"]
        actions = [a for a in made[name]["annotations"] if a["label"] != "Ambiguous"]
        kept = [a for a in video["annotations"] if a["label"] != "Ambiguous"]
        as_set = [
            sorted((a["label"], *map(float, a["segment"])) for a in x) for x in (actions, kept)
        ]
        assert as_set[0] == as_set[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "val_Annotation.csv").unlink(), "no such file; run data_scripts"),
        (lambda f: (f / "val_Annotation.csv").write_text("a,b\n1,2\n"), "no column video"),
        (
            lambda f: (f / "test_Annotation.csv").write_text("video,type,start,end\nv,Jump,x,2\n"),
            "test_Annotation.csv, line 2: start is 'x'",
        ),
        (
            lambda f: (f / "thumos14_test_metadata.csv").write_text(
                "filename,video-duration,video-frames\n"
            ),
            "does not give the length of video_test_0000004 and 212 more",
        ),
    ],
)
def test_broken_thumos_files_are_named(thumos, change, message):
    change(thumos)
    with pytest.raises(InputError, match=message):
        make_thumos_annotations.thumos_annotations(thumos)


def test_a_film_shows_a_new_video_at_double_speed_in_few_colours(trained, tmp_path, capsys):
    film = tmp_path / "film.gif"
    make_film.main(trained, film, seed=3, pixels=16, colours=20)
    assert f"{film}: 90 pictures" in capsys.readouterr().out
    with Image.open(film) as picture:
        assert picture.n_frames == 90  # of 30 s with 15 frames a second, every fifth
        assert (
            picture.info["duration"] == 160
        )  # ms, rounded down to hundredths: a sixth of a second
        assert picture.size[0] == 320
        colours = {colour for _, colour in picture.convert("RGB").getcolors()}
        assert (0x20, 0x20, 0x20) in colours  # below the bars
        assert len(colours) <= 20
    with pytest.raises(SystemExit, match="nowhere"):
        make_film.main(tmp_path / "nowhere", film)
