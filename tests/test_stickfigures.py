"""The generated stick figures: only motion tells the classes apart, and their files are sound."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from etadlite.base.errors import InputError
from etadlite.stickfigures.body import Body, joints
from etadlite.stickfigures.classes import CLASSES, FPS, IDLE
from etadlite.stickfigures.dataset import Size, make_dataset, studio_clips, write_video
from etadlite.stickfigures.motion import (
    ACTIONS,
    PARTS,
    TURN_ARM,
    WALK,
    loiter,
    plan_clip,
    plan_video,
    run_part,
)
from etadlite.stickfigures.scene import STUDIO, TARGET, render

SCRIPT = Path(__file__).parent.parent / "data_scripts" / "make_stickfigures.py"
TINY = Size(training=2, validation=1, longest=31.0, pixels=32)


def accuracy(features: Tensor, labels: Tensor, test: int) -> float:
    """Return the share of the last `test` rows that a network trained on the others gets right."""
    features = (features - features.mean(0)) / (features.std() + 1e-6)
    network = nn.Sequential(
        nn.Linear(features.shape[1], 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, len(CLASSES))
    )
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    for _ in range(200):
        rows = torch.randint(len(features) - test, (128,))
        loss = functional.cross_entropy(network(features[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        return float((network(features[-test:]).argmax(1) == labels[-test:]).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "from_motion"), [(STUDIO, 0.6), (TARGET, 0.22)])
def test_only_motion_tells_the_classes_apart(scene, from_motion):
    torch.set_num_threads(1)
    count, test = 1000, 500
    labels = np.random.default_rng(7).integers(len(CLASSES), size=count)
    clips, _ = studio_clips(count, 8, 32, seed=7, scene=scene, labels=labels)
    grey = torch.from_numpy(clips).float().mean(1) / 255
    targets = torch.from_numpy(labels)
    one_frame = accuracy(functional.avg_pool2d(grey[:, 3:4], 2).flatten(1), targets, test)
    change = (grey[:, 1:] - grey[:, :-1]).abs()
    motion = accuracy(functional.avg_pool2d(change, 4).flatten(1), targets, test)
    print(f"one frame {one_frame:.3f}, eight frames {motion:.3f}, chance {1 / len(CLASSES):.3f}")
    # Chance is 0.125 with a standard error of 0.015 over 500 clips.
    assert one_frame < 0.18
    assert motion > from_motion


@pytest.mark.parametrize("label", range(len(CLASSES) + 1))
def test_phases_are_uniform_in_every_class(label):
    frames = [plan_clip(np.random.default_rng([label, n]), label, 8).phases[5] for n in range(1500)]
    phases = np.stack(frames)
    # Kolmogorov-Smirnov distance from the uniform distribution; 1.95 / sqrt(n) is p = 0.001.
    ranks = (np.arange(len(phases)) + 0.5) / len(phases)
    distance = np.abs(np.sort(phases, axis=0) - ranks[:, None]).max(0)
    assert (distance < 1.95 / np.sqrt(len(phases))).all()
    # Parts are independent of each other: correlations vanish up to 4 standard errors.
    correlation = np.corrcoef(phases.T) - np.eye(PARTS)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(phases))


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.floats(0.5, 12.0),
)
def test_a_part_moves_on_from_where_it_was(seed, phase, rise, cycle):
    phases = run_part(np.random.default_rng(seed), phase, rise, cycle, 40)
    assert ((phases >= 0) & (phases <= 1)).all()
    step = np.abs(np.diff(phases, prepend=phase))
    step = np.minimum(step, 1 - step) if rise in (0.0, 1.0) else step
    fastest = 1 / (cycle * FPS * min(r for r in (rise, 1 - rise) if r > 0))
    assert step.max() <= fastest + 1e-9


@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (4, 5), (6, 7)])
def test_pairs_share_a_part_and_reverse_time(pair):
    first, second = (ACTIONS[label] for label in pair)
    assert first.part == second.part
    forward = run_part(np.random.default_rng(0), 0.5, first.rise, 0.8, 600)
    backward = run_part(np.random.default_rng(1), 0.5, second.rise, 0.8, 600)

    def growing(phases: np.ndarray) -> float:
        return float((np.diff(phases) > 0).mean())

    assert growing(forward) == pytest.approx(growing(backward[::-1]), abs=0.02)
    assert abs(growing(forward) - growing(backward)) > 0.3


def test_actions_are_fast_and_idling_is_slow():
    def speed(label: int, part: int) -> float:
        phases = plan_clip(np.random.default_rng(label), label, 30).phases[:, part]
        step = np.abs(np.diff(phases))
        return float(np.minimum(step, 1 - step).mean() * FPS)

    for label, action in enumerate(ACTIONS):
        moving = speed(label, action.part)
        still = max(speed(label, part) for part in range(PARTS) if part != action.part)
        assert moving > 1.1
        assert still < 0.15
    drifts = [loiter(np.random.default_rng(seed), np.full(PARTS, 0.5), 60)[0] for seed in range(30)]
    drift = np.abs(np.diff(np.stack(drifts), axis=1))[..., : TURN_ARM + 1]
    assert np.minimum(drift, 1 - drift).max() * FPS < 0.45


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(450, 1800))
def test_timelines_keep_to_the_documented_lengths(seed, frames):
    motion = plan_video(np.random.default_rng(seed), frames)
    assert motion.phases.shape == (frames, PARTS)
    assert motion.place.shape == (frames,)
    assert np.abs(motion.place).max() <= WALK
    assert motion.phases.min() >= 0
    assert motion.phases.max() <= 1
    assert motion.actions
    end = 0
    for first, last, label in motion.actions:
        assert 0.5 * FPS - 1 <= first - end <= 6 * FPS
        assert 2 * FPS <= last - first <= 8 * FPS
        assert 0 <= label < len(CLASSES)
        end = last
    assert end < frames


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=PARTS, max_size=PARTS))
def test_bones_keep_their_length(phases):
    body = Body()
    at = {name: place[0] for name, place in joints(body, np.array([phases])).items()}
    for side in ("near", "far"):
        for start, end, length in (
            ("hip", "knee", body.leg / 2),
            ("knee", "foot", body.leg / 2),
            ("shoulder", "elbow", body.arm / 2),
            ("elbow", "hand", body.arm / 2),
        ):
            bone = np.linalg.norm(at[f"{side}_{start}"] - at[f"{side}_{end}"])
            assert bone == pytest.approx(length, abs=1e-6)


def test_clips_depend_on_seed_and_number_only():
    clips, labels = studio_clips(6, 4, 32, seed=3, scene=TARGET, labels=[0, 1, 2, 6, 7, IDLE])
    fewer, _ = studio_clips(3, 4, 32, seed=3, scene=TARGET, labels=[0, 1, 2])
    other, _ = studio_clips(3, 4, 32, seed=4, scene=TARGET, labels=[0, 1, 2])
    assert clips.shape == (6, 3, 4, 32, 32)
    assert clips.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (clips[:3] == fewer).all()
    assert (fewer != other).mean() > 0.5


def test_a_seed_gives_the_same_motion_on_every_machine():
    """As it was recorded: a changed number of the generator makes other data of the same name."""
    motion = plan_video(np.random.default_rng(0), 9000)
    assert motion.actions[:3] == ((58, 154, 3), (191, 272, 0), (356, 426, 2))
    mean = [0.5264, 0.4463, 0.5267, 0.3978, 0.5371, 0.4815]
    change = [0.03141, 0.03367, 0.02629, 0.02484, 0.00370, 0.01916]
    assert motion.phases.mean(0) == pytest.approx(mean, abs=1e-4)
    assert np.abs(np.diff(motion.phases, axis=0)).mean(0) == pytest.approx(change, abs=1e-5)
    assert motion.place.mean() == pytest.approx(-0.00184, abs=1e-5)
    assert np.abs(motion.place).max() == pytest.approx(0.08998, abs=1e-5)


@pytest.mark.parametrize(
    ("scene", "colour", "spread", "change"),
    [
        (STUDIO, [214.08, 217.82, 223.04], 34.43, 2.05),
        (TARGET, [133.58, 142.96, 136.27], 68.60, 13.87),
    ],
)
def test_a_seed_gives_the_same_pictures_on_every_machine(scene, colour, spread, change):
    """As they were recorded, but for the rounding of another release of Pillow."""
    clips = studio_clips(9, 8, 32, seed=0, scene=scene, labels=range(9))[0].astype(float)
    assert clips.mean((0, 2, 3, 4)) == pytest.approx(colour, rel=1e-3)
    assert clips.std() == pytest.approx(spread, rel=1e-3)
    assert np.abs(np.diff(clips, axis=2)).mean() == pytest.approx(change, rel=5e-3)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 9], [-1, 0, 0]])
def test_clips_refuse_wrong_labels(labels):
    with pytest.raises(InputError, match="labels: give 3 numbers"):
        studio_clips(3, 4, 32, labels=labels)


def test_looks_do_not_depend_on_the_action():
    # Clips with the same number have the same figure, clothes and room in every class.
    scene = replace(STUDIO, texture=1.0, colour=1.0)
    clips = [studio_clips(1, 1, 32, seed=5, scene=scene, labels=[label])[0] for label in (0, 5)]
    corner = [clip[0, :, 0, :6, :6] for clip in clips]
    assert (corner[0] == corner[1]).all()


def test_video_survives_compression(tmp_path):
    chance, looks = np.random.default_rng(1).spawn(2)
    motion = plan_video(chance, 30 * FPS)
    frames = np.stack(list(render(looks, motion, TARGET, TINY.pixels)))
    write_video(tmp_path / "one.mp4", frames)
    with av.open(tmp_path / "one.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == FPS
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == frames.shape
    error = np.abs(decoded.astype(int) - frames).mean()
    assert error < 16
    # Frames come back in order: the neighbours fit worse than the frame itself.
    assert error < np.abs(decoded[1:].astype(int) - frames[:-1]).mean()
    assert [path.name for path in tmp_path.iterdir()] == ["one.mp4"]
    assert all(0 < first < last for first, last, _ in motion.actions)


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*.*")) if path.is_file()}


@pytest.mark.slow
def test_dataset_is_the_same_for_any_number_of_processes(tmp_path):
    path = make_dataset(tmp_path / "one", TINY, seed=2, workers=1, progress=False)
    make_dataset(tmp_path / "two", TINY, seed=2, workers=2, progress=False)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    # A larger set begins with the same videos.
    more = replace(TINY, validation=2)
    make_dataset(tmp_path / "more", more, seed=2, workers=1, progress=False)
    videos = content(tmp_path / "one" / "videos")
    assert videos.items() <= content(tmp_path / "more" / "videos").items()
    assert len(set(videos.values())) == 3

    database = json.loads(path.read_text())["database"]
    assert sorted(database) == sorted(name.removesuffix(".mp4") for name in videos)
    for name, entry in database.items():
        assert entry["subset"] == name.split("_")[0]
        assert entry["duration"] == pytest.approx(entry["frame"] / entry["fps"])
        assert 30 <= entry["duration"] <= 31.1
        with av.open(path.parent / "videos" / f"{name}.mp4") as container:
            assert container.streams.video[0].frames == entry["frame"]
        assert entry["annotations"]
        for item in entry["annotations"]:
            assert item["label"] in CLASSES
            assert 0 <= item["segment"][0] < item["segment"][1] <= entry["duration"]


def test_dataset_is_made_once_and_never_mixed(tmp_path):
    root = tmp_path / "data"
    path = make_dataset(root, TINY, workers=1, progress=False)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    make_dataset(root, TINY, workers=1, progress=False)
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob("*")}

    lost = root / "videos" / "training_00001.mp4"
    content_before = lost.read_bytes()
    lost.unlink()
    make_dataset(root, TINY, workers=1, progress=False)
    assert lost.read_bytes() == content_before

    for other in ({"seed": 1}, {"scene": STUDIO}, {"size": replace(TINY, training=3)}):
        with pytest.raises(InputError, match="stick figures made with other settings"):
            make_dataset(root, **{"size": TINY, "workers": 1, "progress": False, **other})
    with pytest.raises(InputError, match="no stick figures"):
        make_dataset(tmp_path, TINY, progress=False)
    with pytest.raises(InputError, match="no data size 'huge'"):
        make_dataset(tmp_path / "huge", "huge", progress=False)
    assert path.exists()


def test_script_reports_a_wrong_size_in_one_sentence(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "x"), "--size", "huge"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert result.stderr.strip().startswith("There is no data size 'huge'")
    assert not (tmp_path / "x").exists()
