"""Features at a fixed stride: which frames, what is in the files, and several processes."""

import json
import multiprocessing
import os
import signal
import time
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from etadlite.base.distributed import torchrun_rank
from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.features import StaleWarning, read_features
from etadlite.data.loading import open_dataset
from etadlite.data.packets import Timeline
from etadlite.data.snippets import clip_frames
from etadlite.data.video import Video, VideoInfo
from etadlite.prepare import extract
from etadlite.prepare.extract import extract_dense
from etadlite.presets import preset
from etadlite.stickfigures.dataset import write_video

# Which frames


@given(st.integers(1, 400), st.integers(1, 32), st.integers(1, 40))
def test_clips_are_those_of_unfold(frames, length, stride):
    clips = clip_frames(frames, length, stride)
    if frames >= length:
        assert (clips == torch.arange(frames).unfold(0, length, stride).numpy()).all()
    else:
        assert clips.tolist() == [[*range(frames), *[frames - 1] * (length - frames)]]


@pytest.fixture(scope="module")
def steady():
    """A function that makes a video of some frames at a constant rate, without a file."""

    def make(frames, fps):
        video = object.__new__(Video)
        video.info = VideoInfo(frames, fps, 32, 32, frames / fps)
        times = np.arange(frames + 1) / fps
        video.timeline = Timeline(times, 0.0, 0, None, [], 0, "", "", 0.0)
        return video

    return make


def clips_at(video, length, stride, fps):
    played = extract.frames_at(video, fps)
    return played[clip_frames(len(played), length, stride)]


@given(
    st.integers(2, 300), st.sampled_from([7.5, 15.0, 25.0, 29.97, 30.0, 60.0]), st.integers(1, 16)
)
def test_at_another_rate_a_clip_shows_what_is_seen_at_its_moments(steady, frames, from_fps, length):
    clips = clips_at(steady(frames, from_fps), length, 4, 15.0)
    whole = np.arange(frames) / from_fps  # when each frame of the file is shown
    for row, clip in enumerate(clips):
        for place, frame in enumerate(clip.tolist()):
            moment = (row * 4 + place) / 15.0
            assert whole[frame] <= moment + 1e-2
            assert frame == clips.max() or whole[frame] + 1 / from_fps > moment - 1e-2
    assert clips.max() < frames


def test_clips_by_hand(steady):
    assert clips_at(steady(40, 30.0), 4, 4, 15.0)[:, 0].tolist() == [0, 8, 16, 24, 32]
    assert clips_at(steady(9, 14.9999), 2, 3, 15.0).tolist() == [[0, 1], [3, 4], [6, 7]]
    assert clips_at(steady(5, 7.5), 4, 2, 15.0).tolist() == [
        [0, 0, 1, 1],
        [1, 1, 2, 2],
        [2, 2, 3, 3],
        [3, 3, 4, 4],
    ]


def test_a_rate_that_is_nearly_the_files_does_not_drift(steady):
    hour = steady(107_892, 30000 / 1001)
    played = extract.frames_at(hour, 30.0)
    assert np.abs(played - np.arange(len(played)) / 30 * 30000 / 1001).max() <= 1.0


@pytest.mark.parametrize("wrong", [(0, 4, 4), (9, 0, 4), (9, 4, 0)])
def test_senseless_clips_are_refused(wrong):
    with pytest.raises(InputError, match="above 0"):
        clip_frames(*wrong)


# Files


class MeanBrightness(nn.Module):
    """Two channels: the mean brightness of a clip's first and of its last frame."""

    channels = 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, frames):
        return frames[:, :, [0, -1]].float().mean((1, 3, 4)) * self.scale


@pytest.fixture
def videos(tmp_path):
    """Three videos of 30 frames a second; frame k is as bright as k."""
    for name, frames in (("v_a", 100), ("v_b", 60), ("v_c", 9)):
        pictures = np.arange(frames, dtype="uint8")[:, None, None, None].repeat(32, 1)
        pictures = pictures.repeat(32, 2).repeat(3, 3)
        write_video(tmp_path / "videos" / f"{name}.mp4", pictures, Fraction(30))
    return tmp_path / "videos"


def extracted(videos, folder, *changes, stride=8, **more):
    settings = preset(
        "e2e_anet_tsp",
        [
            f"data.videos={videos}",
            "data.decode_size=[32,32]",
            "data.crop=32",
            "data.workers=0",
            *changes,
        ],
    )
    return extract_dense(settings, MeanBrightness(), folder, stride=stride, progress=False, **more)


def test_files_are_laid_out_as_tsp_and_actionformer_publish_them(videos, tmp_path):
    out = tmp_path / "features"
    assert extracted(videos, out) == 3
    files = sorted(path.name for path in out.glob("*.npy"))
    assert files == ["v_a.npy", "v_b.npy", "v_c.npy"]
    stored = np.load(out / "v_a.npy")
    assert stored.dtype == np.float32
    starts = np.arange(0, 100 - 16 + 1, 8)
    assert stored == pytest.approx(np.stack([starts, starts + 15], axis=1), abs=2)
    assert np.load(out / "v_c.npy") == pytest.approx(np.array([[0, 8]]), abs=2)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {k: manifest[k] for k in ("feat_stride", "num_frames", "input_dim", "default_fps")} == {
        "feat_stride": 8,
        "num_frames": 16,
        "input_dim": 2,
        "default_fps": None,
    }


def test_another_rate_and_small_blocks_change_no_feature(videos, tmp_path, monkeypatch):
    extracted(videos, tmp_path / "one", fps=15.0, stride=4)
    monkeypatch.setattr(extract, "BLOCK", 8)
    extracted(videos, tmp_path / "two", "data.workers=2", fps=15.0, stride=4)
    for name in ("v_a", "v_b", "v_c"):
        one, two = (np.load(tmp_path / folder / f"{name}.npy") for folder in ("one", "two"))
        assert np.array_equal(one, two)
    starts = np.arange(0, 50 - 16 + 1, 4) * 2
    whole = np.load(tmp_path / "one" / "v_a.npy")
    assert whole == pytest.approx(np.stack([starts, starts + 30], axis=1), abs=2)


def test_what_is_there_is_kept_and_other_settings_are_refused(videos, tmp_path):
    out = tmp_path / "features"
    extracted(videos, out)
    (out / "v_b.npy").unlink()
    before = (out / "v_a.npy").stat().st_mtime_ns
    assert extracted(videos, out) == 1
    assert (out / "v_b.npy").exists()
    assert (out / "v_a.npy").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="choose another folder, or delete this one"):
        extracted(videos, out, stride=4)


def test_features_are_made_again_when_their_video_is_replaced(videos, tmp_path):
    out = tmp_path / "features"
    extracted(videos, out)
    before = np.load(out / "v_a.npy")
    np.save(out / "v_c.npy", np.ones((4, 2)))  # of somebody else: no note, so it is kept
    os.utime(videos / "v_b.mp4", (1, 1))
    for name in ("v_a", "v_c"):
        (videos / f"{name}.mp4").write_bytes((videos / "v_b.mp4").read_bytes())
    assert extracted(videos, out) == 2
    assert np.load(out / "v_a.npy").shape == np.load(out / "v_b.npy").shape != before.shape
    np.testing.assert_array_equal(np.load(out / "v_c.npy"), np.ones((4, 2)))
    assert extracted(videos, out) == 0
    assert torch.equal(
        read_features(out / "v_a.npy", 2).T, torch.from_numpy(np.load(out / "v_a.npy"))
    )


def test_training_on_features_of_replaced_videos_is_refused(videos, tmp_path):
    out, annotations = tmp_path / "features", tmp_path / "annotations.json"
    extracted(videos, out)
    entry = {"subset": "training", "duration": 2.0, "annotations": []}
    entry["annotations"] = [{"segment": [0.5, 1.5], "label": "run"}]
    annotations.write_text(json.dumps({"database": {"v_a": entry, "v_b": entry}}))
    data = DataSettings(annotations=annotations, features=out, videos=videos, snippets=8)

    def opened(data=data):
        return open_dataset(data, ("run",), 2, training=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened()
        os.utime(videos / "v_c.mp4", (1, 1))  # not of this data set
        opened()
    os.utime(videos / "v_b.mp4", (1, 1))
    with pytest.warns(StaleWarning, match=r"1 of 2 .* copied or changed, the first is v_b\.npy"):
        opened()
    (videos / "v_a.mp4").write_bytes((videos / "v_c.mp4").read_bytes())
    words = (
        r"1 of 2 feature files .* other versions of their videos .*v_a\.npy; run `etadlite extract"
    )
    with pytest.raises(InputError, match=words):
        opened()
    opened(data.model_copy(update={"videos": None}))
    np.save(out / "v_a.npy", np.ones((4, 2)))
    np.save(out / "v_b.npy", np.ones((4, 2)))
    opened()


def silent(self, path):
    time.sleep(60)
    yield


def killed(self, path):
    os.kill(os.getpid(), signal.SIGKILL)
    yield


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (silent, r"not answered for 0\.02 minutes"),
        (killed, "exit code -9, perhaps for lack of mem"),
    ],
)
def test_loading_processes_that_do_not_answer_end_an_extraction(
    videos, tmp_path, monkeypatch, blocks, words
):
    monkeypatch.setattr(extract.DenseClips, "blocks", blocks)
    how = ("data.workers=2", "training.patience_minutes=0.02")
    with pytest.raises(InputError, match=f"{words}.*set data.workers=0"):
        extracted(videos, tmp_path / "features", *how)
    assert not [p for p in multiprocessing.active_children() if p.is_alive()]


def test_an_extraction_that_needs_more_shared_memory_is_refused(videos, tmp_path, monkeypatch):
    small = SimpleNamespace(f_bavail=1, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    with pytest.raises(InputError, match=r"data\.workers=1 may need 9 MiB .* /dev/shm has 1 MiB"):
        extracted(videos, tmp_path / "features", "data.workers=1")


def test_processes_share_the_videos_without_a_word(videos, tmp_path, monkeypatch):
    out, written = tmp_path / "features", []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert torchrun_rank() == (int(rank), 2)
        written.append(extracted(videos, out))
    assert written == [1, 2]
    assert len(list(out.glob("*.npy"))) == 3


def test_a_broken_video_is_named_and_costs_no_other(videos, tmp_path):
    (videos / "v_b.mp4").write_bytes(b"no video")
    words = r"1 of 3 feature files cannot be written, .*v_b\.mp4 cannot be"
    with pytest.raises(InputError, match=words) as error:
        extracted(videos, tmp_path / "features")
    assert error.value.everywhere  # each of several processes has failures of its own
    assert sorted(p.name for p in (tmp_path / "features").glob("*.npy")) == ["v_a.npy", "v_c.npy"]


def test_a_folder_without_videos_or_with_two_of_a_name_is_refused(videos, tmp_path):
    with pytest.raises(InputError, match="holds no video"):
        extracted(tmp_path, tmp_path / "features")
    (videos / "v_a.mkv").write_bytes((videos / "v_a.mp4").read_bytes())
    with pytest.raises(InputError, match=r"v_a\.mkv and .*v_a\.mp4 would have the same name"):
        extracted(videos, tmp_path / "features")
