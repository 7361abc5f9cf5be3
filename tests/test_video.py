"""Reading videos: the right frames, of every common kind of file, and clear words for broken ones.

The written videos carry their frame numbers, see `films`.
"""

import os
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from films import KINDS, Film, numbers, usable, write

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data import video as video_module
from etadlite.data.loading import open_dataset
from etadlite.data.no_video import why_no_video
from etadlite.data.packets import ROUNDED
from etadlite.data.snippets import snippet_frames
from etadlite.data.video import Video, VideoWarning, probe, read_frames

SIZE = (32, 32)
VARYING = np.cumsum([0, *np.random.default_rng(0).integers(15, 90, 199)])  # ms


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A function that writes a kind of film once."""
    folder, written = tmp_path_factory.mktemp("films"), {}

    def make(name) -> Film:
        if name not in written:
            written[name] = KINDS[name](folder / name)
        return written[name]

    return make


def upright(name, size=SIZE):
    """Return the size at which a film is read, and a function that turns its pictures back."""
    if name.startswith("rotated"):
        return size[::-1], lambda frames: torch.rot90(frames, -1, (-2, -1))
    return size, lambda frames: frames


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_one_asked_for_and_has_its_time(film, name):
    made = film(name)
    video = Video(made.path)
    frames, (size, turned) = len(made.numbers), upright(name)
    assert (video.info.frames, video.info.note) == (frames, "")
    np.testing.assert_allclose(video.times[:-1], made.times, atol=2e-3)
    assert sum(1 for _ in video) == frames
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        straight = video.frames(np.arange(frames), size)
        assert (numbers(turned(straight)) == made.numbers).all()
        rng = np.random.default_rng(1)
        asked = [[frames - 1], [frames // 2], [11, 12, 13], [9, 40, 41, 45]]
        for indices in (*map(np.array, asked), rng.integers(0, frames, (5, 3))):
            assert torch.equal(video.frames(indices, size), straight[indices])


def test_pictures_of_one_time_are_all_read_and_the_last_one_is_shown(tmp_path):
    """Cameras that write milliseconds or stamps of arrival give several pictures one time."""
    plain, path = (
        write(tmp_path / "plain.mkv", codec="mjpeg", pix_fmt="yuvj420p"),
        tmp_path / "a.mkv",
    )
    due = np.arange(96) // 3 * 100
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.stream, packet.time_base = copy, Fraction(1, 1000)
            packet.pts = packet.dts = int(due[number])
            out.mux(packet)
    video = Video(path)
    assert video.times[:-1] == pytest.approx(due / 1000)
    assert video.shown_at(due / 1000).tolist() == (np.arange(96) // 3 * 3 + 2).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wanted in (np.arange(96), np.array([40, 41, 90]), np.array([64])):
            assert numbers(video.frames(wanted, SIZE)).tolist() == wanted.tolist()


@pytest.mark.parametrize("name", KINDS)
def test_a_moment_has_the_frame_that_players_show(film, name):
    """Second formulation: the last picture that is due, one moment at a time."""
    made = film(name)
    video = Video(made.path)
    moments = np.random.default_rng(2).uniform(0, video.info.duration, 300)
    far = np.abs(moments[:, None] - made.times).min(1) > 2e-3  # as containers round
    for moment, index in zip(moments[far], video.shown_at(moments[far]), strict=True):
        due = [number for number, time in enumerate(made.times) if time <= moment]
        assert index == (due[-1] if due else 0)
    if video.timeline.uneven <= ROUNDED:  # nothing but the moment itself is rounded
        just_before = video.info.start + (np.arange(1, 9) - 1e-3) / video.info.fps
        assert video.shown_at(just_before).tolist() == list(range(8))


def test_rates_and_durations(tmp_path):
    ntsc = probe(write(tmp_path / "ntsc.mp4", 60, rate=Fraction(30000, 1001)))
    assert ntsc.fps == pytest.approx(30000 / 1001)
    assert ntsc.duration == pytest.approx(60 * 1001 / 30000)
    varying = probe(write(tmp_path / "varying.mkv", 200, times=VARYING))
    span = VARYING[-1] / 1000
    assert span < varying.duration < span + 0.1
    assert varying.fps * varying.duration == pytest.approx(200)


def test_an_opened_video_knows_its_clock_and_is_scanned_once(tmp_path, monkeypatch):
    even = Video(write(tmp_path / "even.mp4", 60, bf=2))
    varying = Video(write(tmp_path / "varying.mkv", 200, times=VARYING))
    monkeypatch.setattr(video_module, "scan", None)
    np.testing.assert_allclose(even.times, np.arange(61) / 30, atol=1e-3)
    np.testing.assert_allclose(varying.times[:-1], VARYING / 1000, atol=1e-3)
    assert [index for index, _ in even] == list(range(60))
    strip = even.strip(count=5, height=32)
    assert strip.shape == (5, 32, 32, 3)
    assert numbers(torch.from_numpy(strip).movedim(-1, 1)).tolist() == [6, 18, 30, 42, 54]


def test_snippets_hold_the_frames_of_the_time_grid(tmp_path):
    path = write(tmp_path / "a.mp4", 200, bf=3, g=24)
    for snippets, length, step in [(25, 8, 1), (7, 5, 3), (64, 8, 1), (2, 16, 1)]:
        got = Video(path).snippets(snippets, length, SIZE, step)
        assert got.dtype == torch.uint8
        assert got.shape == (snippets, 3, length, *SIZE)
        wanted = snippet_frames(200, snippets, length, step)
        assert (numbers(got.transpose(1, 2)) == wanted).all()


def test_a_short_video_repeats_its_edges(tmp_path):
    got = Video(write(tmp_path / "a.mp4", 2)).snippets(1, 6, SIZE)
    assert numbers(got.transpose(1, 2)).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_colours_and_sizes(tmp_path):
    """Left half red, right half blue, 64 high and 96 wide, read at other shapes."""
    path = tmp_path / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[:, :48, 0] = picture[:, 48:, 2] = 200
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for height, width in [(64, 96), (48, 48), (50, 33), (128, 171)]:
        frame = read_frames(path, np.array(1), (height, width)).float()
        assert frame.shape == (3, height, width)
        left, right = frame[:, :, : width // 3], frame[:, :, -(width // 3) :]
        assert left.mean((1, 2)).tolist() == pytest.approx([200, 0, 0], abs=6)
        assert right.mean((1, 2)).tolist() == pytest.approx([0, 0, 200], abs=6)


# Other decoders

READ_BY_BOTH = {
    *("h264.mp4", "h264.mkv", "h264.mov", "ntsc.mp4", "varying.mp4", "late.mkv", "rotated.mp4"),
    *("ten_bit.mp4", "hevc.mp4", "vp9.mp4", "prores.mov", "odd.mkv", "cover.mp4", "two_films.mp4"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_another_decoder_gives_the_same_frames_or_refuses_the_file(film, name, decoder):
    usable(decoder)
    video = Video(film(name).path)
    rng, size, last = np.random.default_rng(2), upright(name, (64, 64))[0], video.info.frames - 1
    asked = [[last], [last // 2], [31, 40, 45], rng.integers(0, last + 1, (4, 3)), range(last + 1)]
    refused = []
    for indices in map(np.array, asked):
        ours = video.frames(indices, size, decoder="pyav").int()
        try:
            theirs = video.frames(indices, size, decoder=decoder).int()
        except InputError as error:
            refused.append(str(error))
            continue
        assert (numbers(theirs) == numbers(ours)).all()
        assert (ours - theirs).abs().float().mean((-3, -2, -1)).max() < 3
    assert len(refused) in (0, len(asked))
    assert all(f"{name}: data.decoder={decoder} does not read" in words for words in refused)
    assert name not in READ_BY_BOTH or not refused
    if not refused:  # their scalers differ
        ours, theirs = (video.frames(indices, SIZE, decoder=d).int() for d in ("pyav", decoder))
        assert (ours - theirs).abs().float().mean((-3, -2, -1)).max() < 6


def test_auto_is_the_decoder_that_reads_every_kind(film):
    path = film("hevc_open_gop.mp4").path
    wanted = np.array([50, 3, 70])
    assert torch.equal(read_frames(path, wanted, SIZE), read_frames(path, wanted, SIZE, "pyav"))


def test_tags_in_another_encoding_do_not_matter(film, tmp_path):
    path = tmp_path / "tagged.mp4"
    with av.open(str(film("h264.mp4").path)) as given, av.open(str(path), "w") as made:
        made.metadata["title"] = "Übung"
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    content, title = path.read_bytes(), "Übung".encode()
    assert content.count(title) == 1
    path.write_bytes(content.replace(title, b"\xdcb\xffung"))
    assert Video(path).info.frames == Video(film("h264.mp4").path).info.frames


def test_a_decoder_that_is_absent_or_fails_is_named(film, tmp_path, monkeypatch):
    decord = pytest.importorskip("decord")
    path, wanted = film("h264.mp4").path, np.arange(0, 40, 3)

    class Broken(decord.VideoReader):
        def get_batch(self, indices):
            raise decord.DECORDError("broken")

    class Short(decord.VideoReader):
        def __len__(self):
            return 95

    class Late(decord.VideoReader):
        def get_frame_timestamp(self, indices):
            return super().get_frame_timestamp(indices) + 0.1

    for reader, why in ((Broken, "it fails"), (Short, "it finds 95 of 96 fr"), (Late, "of other")):
        monkeypatch.setattr(decord, "VideoReader", reader)
        with pytest.raises(InputError, match=rf"h264\.mp4: data\.decoder=decord does not .*{why}"):
            read_frames(path, wanted, SIZE, decoder="decord")
    for name in ("decord", "torchcodec"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.decoders", None)
        with pytest.raises(
            InputError, match=rf"data\.decoder={name} cannot be used: it is not inst"
        ):
            open_dataset(
                DataSettings(annotations=tmp_path / "a", videos=tmp_path, decoder=name),
                (),
                1,
                training=True,
            )


@pytest.mark.parametrize(
    ("name", "frames", "fps", "shape"),
    [
        ("arm_wrestling.mp4", 280, 28.0, (340, 256)),
        ("test.mp4", 300, 30.0, (340, 256)),
        ("flipping_a_pancake.mkv", 310, 30.0, (426, 240)),
    ],
)
def test_real_clips(shared, name, frames, fps, shape):
    path = shared / "realdata/videos" / name
    info = probe(path)
    assert (info.frames, info.width, info.height, info.note) == (frames, *shape, "")
    assert sum(1 for _ in Video(path)) == frames
    assert info.fps == pytest.approx(fps, abs=0.01)
    some = np.array([frames - 1, 0, frames // 2])
    got = read_frames(path, some, (64, 80))
    with av.open(str(path)) as container:  # second formulation: count through the whole file
        every = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(every) == frames
    for number, frame in zip(some, got, strict=True):
        picture = torch.from_numpy(every[number]).permute(2, 0, 1)[None].float()
        small = torch.nn.functional.interpolate(picture, (64, 80), mode="area")[0]
        assert (small - frame.float()).abs().mean() < 6


def test_a_clip_with_a_corrupted_packet_loses_only_that_frame(shared):
    path = shared / "realdata/videos/corrupted.mp4"
    assert Video(path).info.frames == 50
    assert [index for index, _ in Video(path)] == [*range(30), *range(31, 50)]
    words = "1 of 50 frames cannot be decoded; the nearest .*; 1 of 50 frames are marked as corrupt"
    with pytest.warns(VideoWarning, match=words):
        frames = read_frames(path, np.arange(50), (36, 64))
    assert torch.equal(frames[30], frames[29])
    assert not torch.equal(frames[31], frames[30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frames(path, np.array([0, 10, 29]), (36, 64))
    with pytest.warns(VideoWarning, match=r"1 of 3 frames follow damage .* intra picture"):
        read_frames(path, np.array([0, 10, 49]), (36, 64))


LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "plain.mp4": "file other.mp4\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
    "dash.mp4": """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
        mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">
        <Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">
        <BaseURL>other.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>""",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_other_files_is_not_followed(tmp_path, name):
    for other in ("other.mp4", "other.ts"):
        write(tmp_path / other, 20)
    (tmp_path / name).write_text(LISTS[name])
    with pytest.raises(InputError, match=rf"{name} cannot be read as a video"):
        Video(tmp_path / name)
    if name in ("concat.mp4", "hls.m3u8"):  # which FFmpeg would follow
        with pytest.raises(InputError, match="or a list of other files, which are not followed"):
            Video(tmp_path / name)
    assert why_no_video(tmp_path / name)


@pytest.mark.parametrize("name", ["12:30.mp4", "http:a.mp4", "pipe:1.mp4", "file:a.mp4", "-.mp4"])
def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch, name):
    if os.name == "nt" and ":" in name:
        pytest.skip("such names are not allowed here")
    write(tmp_path / "plain.mp4", 20).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(Video(name).frames(np.arange(20), SIZE)).tolist() == list(range(20))
    assert why_no_video(Path(name)) == ""


@pytest.mark.skipif(not hasattr(av.Packet, "has_sidedata"), reason="PyAV 16 tells it")
def test_an_encrypted_film_is_called_so(tmp_path):
    key = {"encryption_key": "00112233445566778899aabbccddeeff", "encryption_kid": "0" * 32}
    path = write(tmp_path / "a.mp4", muxer={"encryption_scheme": "cenc-aes-ctr", **key})
    with pytest.raises(InputError, match=r"a\.mp4 is encrypted, and its key is not known; get an"):
        Video(path)


def test_a_file_cut_off_in_its_index_is_refused(tmp_path):
    whole = write(tmp_path / "whole.mp4", 60).read_bytes()
    path = tmp_path / "cut.mp4"
    index = whole.find(b"moov")  # it stands at the end
    for end in (index // 2, index + 100, index + 300, index + 600):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.mp4 cannot be read as a video"):
            probe(path)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_file_cut_off_in_its_pictures_is_read_as_far_as_it_goes(tmp_path, name):
    front = {"movflags": "faststart"} if name.endswith("mp4") else None  # the index comes first
    path = write(tmp_path / name, 300, bf=0, g=12, muxer=front)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.warns(VideoWarning, match="announces .* it may be cut off"):
        info = probe(path)
    assert 60 < info.frames < 290
    assert info.duration == pytest.approx(info.frames / 30, abs=0.01)
    with pytest.warns(VideoWarning, match="it may be cut off"):
        got = numbers(read_frames(path, np.arange(info.frames - 2), SIZE))
    assert (got == np.arange(info.frames - 2)).all()
    with pytest.warns(VideoWarning, match="it may be cut off"):
        assert Video(path).snippets(8, 4, SIZE).shape == (8, 3, 4, *SIZE)


def test_flipped_bytes_shift_no_frame(tmp_path):
    path = write(tmp_path / "a.mkv", 200, g=10, sc_threshold=0)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(len(content) // 3, len(content) // 2, 8):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        info = probe(path)
        got = numbers(read_frames(path, np.arange(info.frames), SIZE))
    # The demuxer may lose whole clusters; what is left shows the right end at the right place.
    assert got[0] == 0
    assert got[-1] == 199
    assert info.frames >= 100


def test_pictures_that_are_all_destroyed_are_refused(tmp_path):
    path = write(tmp_path / "zero.mp4", 30, muxer={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 4
    content[start:] = bytes(len(content) - start)
    path.write_bytes(content)
    assert probe(path).frames == 30
    assert not list(Video(path))
    with pytest.raises(InputError, match="0 of the 8 frames asked for can be decoded"):
        Video(path).snippets(2, 4, SIZE)


@pytest.mark.parametrize("reader", [probe, lambda path: Video(path).snippets(4, 4, SIZE)])
def test_what_is_no_video_is_refused(tmp_path, reader):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a film of words\n" * 100)
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write(tmp_path / "one.mp4", 1)
    (tmp_path / "folder.mp4").mkdir()
    words = {
        "missing.mp4": "there is no such video file",
        "folder.mp4": "there is no such video file",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read as a video",
        "audio.mp4": "holds no pictures that move",
        "one.mp4": "has 1 frame .* at least two",
    }
    for name, message in words.items():
        with pytest.raises(InputError, match=rf"{name.replace('.', '[.]')}.*{message}"):
            reader(tmp_path / name)


def test_frames_outside_the_video_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4", 10)
    for indices in ([10], [-1], [0, 5, 99]):
        with pytest.raises(InputError, match="has the frames 0 to 9, but frames"):
            read_frames(path, np.array(indices), SIZE)
    assert read_frames(path, np.zeros((0, 4), int), SIZE).shape == (0, 4, 3, *SIZE)


class _Snippets(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Video(self.path).snippets(4, 4, SIZE)


def test_forked_workers_read_after_their_parent_did(tmp_path):
    path = write(tmp_path / "a.mp4", 40)
    here = Video(path).snippets(4, 4, SIZE)
    loader = torch.utils.data.DataLoader(_Snippets(path), num_workers=2, timeout=60)
    batches = list(loader)
    assert len(batches) == 4
    assert all(torch.equal(batch[0], here) for batch in batches)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_stays_open(tmp_path):
    path = write(tmp_path / "a.mp4", 20)
    for _ in range(5):
        Video(path).snippets(2, 4, SIZE)
        assert len(list(Video(path))) == 20
    opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    assert os.path.realpath(path) not in opened


@pytest.mark.parametrize(
    "change",
    [
        lambda film: write(film, 60, first=7),  # replaced
        lambda film: film.write_bytes(film.read_bytes()[:-900]),
        lambda film: film.write_bytes(film.read_bytes() + bytes(8)),  # still written
        lambda film: film.unlink(),
    ],
)
@pytest.mark.filterwarnings("ignore::etadlite.data.video.VideoWarning")
def test_a_film_that_changes_while_it_is_read_is_refused(tmp_path, change):
    video = Video(write(tmp_path / "a.mp4"))
    change(video.path)
    with pytest.raises(InputError, match=f"^{video.path} (changed meanwhile|cannot be decoded)"):
        video.strip()
