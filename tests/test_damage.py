"""What is said of damaged videos beyond the decoder's marks, and that intact ones are quiet."""

import warnings
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from films import COUNT, KINDS, X265, copied, even, numbers, write

from etadlite.data.bitstream import pictures_shown
from etadlite.data.decoders import Decoded, with_doubts
from etadlite.data.listening import listening
from etadlite.data.video import Video, VideoWarning

SIZE = (64, 64)


def said(video, indices=None):
    """What is said while frames are read, without the file's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video.frames(np.arange(video.info.frames) if indices is None else indices, SIZE)
    assert all(warning.category is VideoWarning for warning in caught)
    return "; ".join(str(warning.message).partition(": ")[2] for warning in caught)


@pytest.mark.parametrize("name", KINDS)
def test_an_intact_film_is_read_without_a_word(tmp_path, name):
    video = Video(KINDS[name](tmp_path / name).path)
    draw = np.random.default_rng(0)
    for count in (video.info.frames, 3, 3, 1, 2):
        indices = np.sort(draw.choice(video.info.frames, count, replace=False))
        assert said(video, indices) == ""


def test_real_clips_with_packed_pictures_are_read_without_a_word(shared):
    folder = shared / "realdata" / "ut-interaction"
    clips = sorted(folder.rglob("*.avi")) if folder.is_dir() else []
    if not clips:
        pytest.skip(f"no clips in {folder}")
    packed = 0
    for path in clips[::30]:
        video = Video(path)
        with av.open(str(path)) as container:  # second formulation: FFmpeg's own loop
            stream, packets = container.streams.video[0], 0
            stream.codec_context.thread_count = 1
            decoded = 0
            for packet in container.demux(stream):
                packets += packet.size > 0
                decoded += len(packet.decode())
        assert video.info.frames == decoded
        assert said(video) == ""
        packed += decoded < packets
    assert packed


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_packet_that_an_avi_lost_is_said(tmp_path):
    """FFmpeg steps over a chunk without a known name; every later picture moves forward."""
    path = KINDS["mjpeg.avi"](tmp_path / "mjpeg.avi").path
    lost = packets_of(path)[20]
    content = path.read_bytes()
    place = content.find(lost) - 8
    assert content[place : place + 4] == b"00dc"
    path.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    video = Video(path)
    assert video.info.frames == COUNT - 1
    assert "announces 96 frames but holds 95" in said(video)
    assert "its index lists 96 frames but it holds 95" in said(video)


def test_a_picture_of_which_the_decoder_reports_errors_is_said(tmp_path):
    """MJPEG has no checksum and FFmpeg marks nothing, but it reports codes that do not exist."""
    path = KINDS["mjpeg.mov"](tmp_path / "mjpeg.mov").path
    content, picture = path.read_bytes(), packets_of(path)[20]
    place = content.find(picture) + len(picture) * 3 // 4
    path.write_bytes(content[:place] + b"\xfe" * 40 + content[place + 40 :])
    video = Video(path)
    assert "1 of 96 frames are marked as corrupt" in said(video)
    assert "1 of 1 frames are marked as corrupt" in said(video, np.array([20]))
    assert said(video, np.array([3, 19, 21, 95])) == ""
    assert (numbers(video.frames(np.arange(21, 96), SIZE)) == np.arange(21, 96)).all()


def test_checksums_of_pictures_are_checked(tmp_path):
    """Most damage of HEVC is valid code."""
    path = even(tmp_path / "a.mp4", codec="libx265", x265_params=f"{X265}:hash=1").path
    assert said(Video(path)) == ""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "frames are marked as corrupt" in said(Video(path))


def test_damage_of_a_container_is_said(tmp_path):
    path = even(tmp_path / "a.mkv", codec="mpeg4", g=12).path
    content = path.read_bytes()
    place = content.find(packets_of(path)[30]) - 8
    path.write_bytes(content[:place] + bytes(60) + content[place + 60 :])
    assert "its container is damaged, and frames may be missing" in Video(path).info.note


def test_lost_packets_of_a_transport_stream_are_said(tmp_path):
    whole = KINDS["h264.ts"](tmp_path / "h264.ts").path.read_bytes()
    path, middle = tmp_path / "cut.ts", len(whole) // 188 // 2 * 188
    path.write_bytes(whole[:middle] + whole[middle + 188 :])
    assert "1 packets are marked as damaged in its container" in said(Video(path))
    path.write_bytes(whole[: middle + 100])
    assert "its last packet is cut off, or bytes are missing" in said(Video(path))
    for size, first in ((192, 4), (204, 0)):  # with times before each packet, or checksums behind
        parts = (whole[k : k + 188] for k in range(0, len(whole), 188))
        longer = b"".join(bytes(first) + part + bytes(size - 188 - first) for part in parts)
        path.write_bytes(longer)
        assert said(Video(path)) == ""
        path.write_bytes(longer[:-7])
        assert "its last packet is cut off" in said(Video(path))


def test_a_jump_forward_where_packets_are_missing_may_be_a_join(tmp_path):
    parts = [write(tmp_path / f"{late}.ts", 48, first=late, late=late, g=12) for late in (0, 108)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = Video(path)
    assert video.times[48] - video.times[47] == pytest.approx(2, abs=0.1)
    assert video.timeline.restarts == 0
    assert "damaged in its container, or recordings are joined there" in said(video)
    content = even(path, codec="mpeg2video", g=1, b=9_000_000, size=(320, 240)).path.read_bytes()
    inside = len(content) // 188 // 2 * 188  # a picture, which has many packets
    path.write_bytes(content[:inside] + content[inside + 188 :])
    assert "1 packets are marked as damaged in its container" in said(Video(path))
    assert "are joined" not in said(Video(path))


@pytest.mark.parametrize(
    ("name", "share"), [("late.mkv", 0.8), ("flv1.flv", 0.9), ("gaps.avi", 0.5)]
)
def test_a_file_that_ends_a_little_early_is_said(tmp_path, name, share):
    path = KINDS[name](tmp_path / name).path
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "it may be cut off" in said(Video(path))


def test_an_intact_file_whose_numbers_start_late_is_read_without_a_word(tmp_path):
    """Its length is the time when its last picture ends, in its own numbers."""
    plain = write(tmp_path / "a.mkv", bf=0)
    path = copied(plain, tmp_path / "late.mkv", lambda number: True, 7000)
    video = Video(path)
    assert (said(video), video.info.start) == ("", 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.8)])
    assert "it may be cut off" in said(Video(path))


def test_gaps_of_an_avi_with_b_frames_are_said(tmp_path):
    times = np.round(np.concatenate([np.arange(40), 60 + np.arange(56)]) * 100 / 3)
    beside = "the pictures beside its gaps may be shown at other times"
    assert beside in said(Video(write(tmp_path / "a.avi", times=times, codec="mpeg4", g=12, bf=2)))
    for name in ("gaps.avi", "h264.avi", "mpeg4.avi"):
        assert said(Video(KINDS[name](tmp_path / name).path)) == ""


def test_times_that_are_made_up_are_said(tmp_path):
    path = tmp_path / "raw.mjpeg"
    path.write_bytes(b"".join(packets_of(KINDS["mjpeg.avi"](tmp_path / "mjpeg.avi").path)))
    assert "no container and so no times (25 frames per second are assumed)" in said(Video(path))
    path = even(tmp_path / "fast.avi", codec="mpeg4", g=24).path
    content = bytearray(path.read_bytes())
    place = content.find(b"strh") + 28  # the scale of the rate, and the rate
    content[place : place + 8] = np.array([1, 2**31 - 1], "<u4").tobytes()
    path.write_bytes(content)
    assert "frames per second is beyond sense" in said(Video(path))


def test_an_empty_packet_of_mpeg4_lasts_on_and_shifts_no_picture(tmp_path):
    """VirtualDub and Xvid write such packets where they leave out a picture."""
    plain, path = write(tmp_path / "plain.avi", codec="mpeg4", g=12), tmp_path / "a.avi"
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            if number == 40:
                empty = av.Packet(b"\0\0\1\xb6\x55\x4f")  # a P picture that is not coded
                empty.stream, empty.pts, empty.dts = copy, 40, 40
                empty.time_base = packet.time_base
                out.mux(empty)
            packet.stream = copy
            packet.pts = packet.dts = number + (number >= 40)
            out.mux(packet)
    video = Video(path)
    assert said(video) == ""
    shown = numbers(video.frames(video.shown_at(np.arange(COUNT + 1) / 30 + 0.01), SIZE))
    np.testing.assert_array_equal(shown, [*range(40), *range(39, COUNT)])


def test_pictures_of_a_packet_are_counted():
    picture = b"\0\0\1\xb6" + b"x" * 20
    assert [pictures_shown("mpeg4", memoryview(data)) for data in (
        picture, picture * 2, b"\x7f", b"\0\0\1\xb6xx", b"x" * 40
    )] == [1, 2, 0, 0, 1]  # fmt: skip
    assert pictures_shown("h264", memoryview(b"x")) == 1


def test_an_intra_picture_ends_the_doubt_but_not_right_behind_a_lost_hidden_one():
    # Picture 1 is corrupt, and picture 5 comes right behind a lost one that is never shown.
    frames = [
        Decoded(index, SimpleNamespace(pict_type=PictureType[kind]), index == 1, index == 5)
        for index, kind in enumerate("IPPIPIPIP")
    ]
    doubted = [decoded.index for decoded in with_doubts(frames) if decoded.doubted]
    assert doubted == [2, 5, 6]


def test_listening_ends_as_it_began():
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    one, other = listening(), listening()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)  # generators may end in any order
    with av.logging.Capture() as reports:
        for _ in range(2):
            av.logging.log(av.logging.ERROR, "part", "said twice")
        av.logging.log(av.logging.WARNING, "part", "no error")
    other.__exit__(None, None, None)
    assert [what for *_, what in reports] == ["said twice"] * 2
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before
    with av.logging.Capture() as reports:
        av.logging.log(av.logging.ERROR, "part", "unheard")
    assert not reports
