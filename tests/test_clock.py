"""One clock: times are those that players show, in every part that reads or writes them."""

import struct
import warnings
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from films import KINDS, even, numbers, write
from test_data_scripts import convert_videos
from test_extract import MeanBrightness

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.annotations import read_annotations
from etadlite.data.decoders import NEED_OTHERS, Decoded, with_doubts
from etadlite.data.packets import _clock
from etadlite.data.snippets import snippet_frames
from etadlite.data.video import Video, VideoWarning
from etadlite.data.windows import decode_window, windows_of
from etadlite.prepare.check import examine_video
from etadlite.prepare.extract import extract_dense, frames_at
from etadlite.prepare.findings import clock_in_words, special_clocks
from etadlite.prepare.own_data import init_dataset
from etadlite.presets import preset
from etadlite.viz.timeline import write_annotated

SIZE = (32, 32)


def shown(video, seconds):
    """The numbers of the pictures that are shown at some seconds."""
    return numbers(video.frames(video.shown_at(np.array(seconds)), SIZE))


# The given cases


@pytest.fixture
def case(shared):
    def folder(name):
        if not (shared / "cases" / name).is_dir():
            pytest.skip("no cases in the shared folder")
        return shared / "cases" / name

    return folder


def test_pictures_that_start_late_keep_the_players_times(case, tmp_path):
    folder = case("start-offset")
    late = Video(folder / "late.mp4")
    assert late.info.duration == pytest.approx(22.0)
    assert fourteen_bits(late, [0.0, 1.9, 12.0, 21.99]).tolist() == [0, 0, 300, 599]
    # FFmpeg's first picture at or after 5 s is 185; the one that is still shown then is 184.
    assert fourteen_bits(Video(folder / "cut_after.mp4"), [5.0, 5.032]).tolist() == [184, 185]
    said = []
    init_dataset(folder, [folder / "labels.csv"], tmp_path, log=said.append, progress=False)
    assert any("late: its pictures start 2.00 s after its clock" in line for line in said)
    written = read_annotations(tmp_path / "annotations.json")
    assert max(action.end for action in written["late"].actions) == pytest.approx(21.9)


def test_sound_that_lasts_longer_than_the_pictures_is_no_fault(case, tmp_path):
    folder = case("long-audio")
    info = Video(folder / "a.mp4").info
    assert (info.frames, info.note, info.duration) == (600, "", pytest.approx(20.0))
    assert set(init_dataset(folder, [folder / "labels.csv"], tmp_path, progress=False)) == {
        "a",
        "b",
    }


def test_intra_refresh_is_read_from_where_decoding_can_start(case):
    video = Video(case("intra-refresh") / "refresh.mp4")
    straight = video.frames(np.arange(600), SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = video.snippets(16, 8, SIZE)
    assert torch.equal(read.transpose(1, 2), straight[snippet_frames(600, 16, 8)])


def test_extraction_at_a_rate_shows_what_is_seen_at_its_moments(case):
    video = Video(case("vfr-extract") / "clip.mp4")
    starts = np.arange(0, 590, 8)
    seen = numbers14(video.frames(frames_at(video, 15.0)[starts], (64, 64)))
    moments = starts / 15
    expected = np.where(moments < 10, moments * 30, 300 + (moments - 10) * 10)
    assert (seen == np.floor(expected + 1e-6)).all()


def numbers14(frames):
    """The numbers of the shared cases: 14 of 16 squares."""
    return numbers(frames) & 0x3FFF


def fourteen_bits(video, seconds):
    return numbers14(video.frames(video.shown_at(np.array(seconds)), (64, 64)))


# Everywhere: the same on generated videos

RATES = {"late.mp4": 30, "varying.mkv": None, "joined.ts": 30, "cut_copy.mp4": 30}


@pytest.fixture(params=RATES)
def film(request, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    made = KINDS[request.param](folder / request.param)
    for part in folder.glob("part*"):
        part.unlink()
    # FFmpeg looks at the content, so the name may have any suffix.
    return made._replace(path=made.path.rename(made.path.with_suffix(".mp4")))


def players(film, seconds):
    """The number that players show at each moment, by the film's own list."""
    place = np.searchsorted(film.times, np.asarray(seconds) + 2e-3, "right") - 1
    return film.numbers[place.clip(0)]


def test_snippets_windows_and_strips_show_what_players_show(film):
    video = Video(film.path)
    rate, duration = video.info.fps, video.info.duration
    got = numbers(video.snippets(8, 4, SIZE).transpose(1, 2))
    counted = snippet_frames(round(duration * rate), 8, 4)
    early, late = players(film, counted / rate), players(film, (counted + 1) / rate)
    assert ((early <= got) & (got <= late)).all()
    settings = DataSettings(
        annotations="a", snippets=8, frames=3, decode_size=SIZE, crop=32, window_stride=4
    )
    for window in windows_of(video.count, size=8, stride=4):
        read = decode_window(video, window, settings, lambda frames: frames, frames=video.count)
        counted = window.first_frame + np.arange(8)[:, None] * 4 + np.arange(3)
        early, late = (players(film, (counted + side) / rate) for side in (0, 1))
        got = numbers(read.transpose(1, 2))
        assert ((early <= got) & (got <= late)).all()
    moments = (np.arange(6) + 0.5) * duration / 6
    strip = torch.from_numpy(video.strip(6, 64)).movedim(-1, 1)
    assert numbers(strip).tolist() == players(film, moments).tolist()


def test_features_stand_for_the_moments_that_players_show(film, tmp_path):
    changes = ("data.decode_size=[32,32]", "data.crop=32", "data.frames=2", "data.workers=0")
    settings = preset("e2e_anet_tsp", [f"data.videos={film.path.parent}", *changes])
    extract_dense(settings, MeanBrightness(), tmp_path, stride=3, fps=10.0, progress=False)
    features = np.load(tmp_path / f"{film.path.stem}.npy")[:, 0]
    moments = np.arange(len(features)) * 0.3
    video = Video(film.path)
    pictures = video.frames(np.arange(video.info.frames), SIZE).float().mean((1, 2, 3)).numpy()
    index = np.searchsorted(film.numbers, players(film, moments))
    assert features == pytest.approx(pictures[index], abs=0.01)
    assert len(features) == pytest.approx(video.info.duration / 0.3, abs=1.5)


def test_frame_numbers_of_annotations_are_pictures(film, tmp_path):
    rows = "\n".join(f"{film.path.stem},{a},{b},wave" for a, b in ((10, 20), (60, 90)))
    table = tmp_path / "labels.csv"
    table.write_text(f"video,start_frame,end_frame,label\n{rows}\nother,1,20,wave\n")
    write(film.path.with_name("other.mp4"))
    init_dataset(film.path.parent, [table], tmp_path / "out", progress=False)
    (first, second) = read_annotations(tmp_path / "out" / "annotations.json")[
        film.path.stem
    ].actions
    due = film.times[[10, 20, 60, 90]]
    assert [*first[:2], *second[:2]] == pytest.approx(due.tolist(), abs=2e-3)


def test_an_annotated_video_has_the_same_clock(film, tmp_path):
    made = Video(write_annotated(Video(film.path), tmp_path / "shown.mp4", []))
    assert made.info.duration == pytest.approx(Video(film.path).info.duration, abs=0.06)
    moments = np.linspace(0.05, made.info.duration - 0.05, 20)
    place = [np.argmin(np.abs(film.times - t)) if t > film.times[0] else 0 for t in moments]
    bar = made.info.height - 320
    size = (made.info.height, 320)
    pictures = made.frames(made.shown_at(moments), size)[:, :, : size[0] - bar]
    assert np.abs(numbers(pictures) - film.numbers[place]).max() <= 1


def test_a_converted_video_has_the_same_clock(film, tmp_path):
    convert_videos.convert(convert_videos.Job(film.path, tmp_path / "out.mp4"), 15, 64)
    made = Video(tmp_path / "out.mp4")
    assert made.info.start == 0
    moments = np.arange(1, made.info.frames - 1) / 15
    got = numbers(made.frames(made.shown_at(moments), (64, 64)))
    early, late = players(film, moments - 1 / 30), players(film, moments + 1 / 30)
    assert ((early <= got) & (got <= late)).all()


@pytest.mark.parametrize(("first", "start"), [(0, 0), (19, 0), (21, 0.021), (400, 0.4)])
def test_a_picture_within_half_a_frame_of_the_clocks_start_starts_it(first, start):
    """At 25 frames a second, in thousandths of a second."""
    ticks = np.arange(first, first + 200, 40)
    container = SimpleNamespace(format=SimpleNamespace(name="mov,mp4"), start_time=0)
    packets = SimpleNamespace(container=container, start=0.0, tick=0.001, rate=25.0)
    times = _clock(packets, [(tick, tick, 40, True) for tick in ticks], ticks)
    assert times == pytest.approx(start + np.arange(6) / 25)


def test_pictures_of_a_slow_camera_do_not_start_the_clock_again(tmp_path):
    """One in five seconds: the next one in the file may be due 20 seconds later."""
    made = even(tmp_path / "a.ts", Fraction(1, 5), count=40, bf=3, g=24, sc_threshold=0)
    video = Video(made.path)
    assert (video.timeline.restarts, video.info.note) == (0, "")
    assert video.times[:-1] == pytest.approx(made.times)
    assert numbers(video.frames(np.arange(40), (64, 64))).tolist() == list(range(40))


def test_a_film_without_a_container_starts_with_its_first_picture(tmp_path):
    made = even(tmp_path / "a.m2v", codec="mpeg2video", bf=2, g=12, b=2_000_000)
    assert Video(made.path).times[:-1] == pytest.approx(made.times)


# What is said


CLOCKS = {
    "late.mp4": "its pictures start 1.50 s after its clock",
    "varying.mp4": "its frame rate varies, by up to 0.2 s",
    "gaps.avi": "its frame rate varies, by up to 0.4 s",
    "joined.ts": "its clock starts again 1 time",
}


def test_the_check_names_clocks_that_count_differently(tmp_path):
    names = (*CLOCKS, "h264.ts", "ntsc.mp4", "long_sound.mp4")
    files = {name: examine_video(KINDS[name](tmp_path / name).path) for name in names}
    assert not any(file.problem or file.note for file in files.values())
    found = special_clocks(files)
    assert (set(found.items), found.problem) == ({f"{n}: {w}" for n, w in CLOCKS.items()}, False)


def with_edits(path, *edits):
    """A file with an edit list of other parts: start in the film and length, in ms, and speed."""
    content = bytearray(even(path, bf=0).path.read_bytes())
    place = content.find(b"edts") - 4
    entries = b"".join(
        struct.pack(">IiI", length, max(start * 15360 // 1000, -1), int(speed * 0x10000))
        for start, length, speed in edits
    )
    elst = struct.pack(">I4sII", len(entries) + 16, b"elst", 0, len(edits)) + entries
    old = int.from_bytes(content[place : place + 4], "big")
    content[place : place + old] = struct.pack(">I4s", len(elst) + 8, b"edts") + elst
    for kind in (b"moov", b"trak"):  # they hold it
        start = content.find(kind) - 4
        size = int.from_bytes(content[start : start + 4], "big") + len(elst) + 8 - old
        content[start : start + 4] = size.to_bytes(4, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([(0, 1000, 1)], ""),
        ([(-1, 500, 1), (0, 1000, 1)], ""),
        ([(0, 1000, 1), (2000, 1000, 1)], "its edit list has 2 parts, and their borders may be"),
        ([(0, 2000, 0.5)], "its edit list changes the speed, which is not followed"),
    ],
)
def test_edit_lists_that_are_not_followed_are_said(tmp_path, edits, words):
    said = clock_in_words(Video(with_edits(tmp_path / "a.mp4", *edits)))
    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_a_second_film_behind_the_first_is_said(tmp_path):
    """Players stop at the end of the first."""
    path = even(tmp_path / "a.mp4", bf=0).path
    path.write_bytes(2 * path.read_bytes())
    video = Video(path)
    assert video.info.frames == 96
    assert clock_in_words(video) == "it holds 2 recordings, of which players show the first alone"


def flipped(path, seed):
    """A file whose pictures have a few wrong bytes."""
    write(path, g=24, bf=2, muxer={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 8
    for place in np.random.default_rng(seed).integers(start, len(content), 6):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def test_frames_that_the_decoder_marks_are_counted_and_said(tmp_path):
    marked = 0
    for seed in range(4):
        path = flipped(tmp_path / f"{seed}.mp4", seed)
        with av.open(str(path)) as container:  # second formulation: FFmpeg's own loop
            stream, expected, decoded = container.streams.video[0], 0, 0
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        expected, decoded = expected + frame.is_corrupt, decoded + 1
                except av.error.FFmpegError:
                    continue
        note = examine_video(path, deep=True).note
        words = f"{expected} of 96 frames are marked as corrupt by the decoder"
        assert (words in note) == (expected > 0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            Video(path).frames(np.arange(96), SIZE)
        assert (expected > 0) == any("marked as corrupt" in str(w.message) for w in said)
        assert all(w.category is VideoWarning for w in said)
        marked += expected
    assert marked > 0


def broken_key_frame(path, number):
    """A file in which the decoder marks one key frame as corrupt."""
    KINDS[path.name](path)
    intact = path.read_bytes()
    shown = {key.frame: key.shown for key in Video(path).timeline.keys}[number]
    with av.open(str(path)) as container:
        data = next(bytes(packet) for packet in container.demux(video=0) if packet.pts == shown)
    start = intact.find(data)
    for place in range(start + len(data) // 4, start + len(data) - 8, 7):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0x55]) + intact[place + 1 :])
        marked = [index for index, frame in Video(path) if frame.is_corrupt]
        if marked == [number]:
            return path
    pytest.fail("no byte of the key frame makes the decoder mark it")


@pytest.mark.parametrize("name", ["h264.mkv", "fragmented.mp4"])
def test_frames_that_follow_damage_are_said_and_as_from_the_start(tmp_path, name):
    video = Video(broken_key_frame(tmp_path / name, 24))
    with pytest.warns(VideoWarning, match=r"1 of 96 frames are marked.*23 of 96 frames follow"):
        every = video.frames(np.arange(96), SIZE)  # without a jump
    with pytest.warns(VideoWarning) as said:
        shown = video.frames(np.array([40, 41]), SIZE)  # behind a jump to the damaged key frame
    assert str(said[0].message).partition(": ")[2] == (
        "2 of 2 frames follow damage and may show it, up to the next intra picture"
    )
    assert torch.equal(shown, every[40:42])
    assert "23 of 96 frames follow damage" in examine_video(video.path, deep=True).note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for clean in ([3, 23], [50, 95]):
            assert torch.equal(video.frames(np.array(clean), SIZE), every[clean])


@pytest.mark.parametrize("name", ["mjpeg.avi", "gaps.avi"])
def test_a_lost_picture_shifts_no_other_where_pictures_are_counted(tmp_path, name):
    film = KINDS[name](tmp_path / name)
    with av.open(str(film.path)) as container:
        data = [bytes(packet) for packet in container.demux(video=0) if packet.size][20]
    film.path.write_bytes(film.path.read_bytes().replace(data, bytes(len(data))))
    video = Video(film.path)
    assert 20 not in [index for index, _ in video]
    with pytest.warns(VideoWarning, match="1 of 96 frames cannot be decoded"):
        every = numbers(video.frames(np.arange(96), (64, 64)))
    intact = [k for k in range(96) if k < 20 or k > 24]  # up to the next key frame
    np.testing.assert_array_equal(every[intact], film.numbers[intact])


def test_doubt_starts_at_damage_and_ends_at_an_intra_picture():
    def frame(letter):
        kinds = {"I": av.video.frame.PictureType.I, "P": NEED_OTHERS[0], "B": NEED_OTHERS[1]}
        return SimpleNamespace(pict_type=kinds[letter.upper()])

    for letters, expected in (
        ("IPBPIP", "......"),
        ("IpBPIP", "..??.."),  # a marked picture
        ("IP-PBIP", "..??.."),  # a lost picture
        ("IPiPB", "...??"),
        ("I-IP", "..."),
        ("PPP", "..."),  # such as behind an edit list
    ):
        frames = [
            Decoded(k, frame(x), x.islower(), False) for k, x in enumerate(letters) if x != "-"
        ]
        assert "".join(".?"[decoded.doubted] for decoded in with_doubts(frames)) == expected


def test_a_codec_that_nothing_can_decode_is_named(tmp_path):
    path = write(tmp_path / "a.mp4")
    content = path.read_bytes()
    place = content.find(b"avc1", content.find(b"stsd"))
    path.write_bytes(content[:place] + b"zvc1" + content[place + 4 :])
    with pytest.raises(InputError, match=r"a\.mp4: nothing here can decode its pictures"):
        Video(path)
