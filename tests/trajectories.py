"""The first steps of every preset on little generated data, as `tests/golden` records them.

    python tests/trajectories.py [PRESET ...]    record them anew, after a change that is meant
    python tests/trajectories.py constants       record only settings and named constants

Data are made by NumPy's generator of integers and stored without loss, so that every machine has
the same bits. The presets keep their sampling, losses, optimiser and schedule. Snippets, detector
and batches are shrunk; the tiny encoder stands in for R(2+1)D-34 and EfficientNet, 50 steps of
which would take minutes. The learning rates are low: at higher ones a proposal that lies at a
threshold of tIoU changes sides by rounding alone, and the losses of two machines part. Videos bear
a tenth of what features bear, because an encoder's ReLUs change sides, too.
"""

import ast
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from etadlite import presets
from etadlite.base.files import write_json
from etadlite.config import Settings, flat
from etadlite.presets import PRESETS, preset
from etadlite.runs.trajectory import STEPS, Trajectory, write_trajectory
from etadlite.training import loop, train

PACKAGE = Path(presets.__file__).parent
GOLDEN = Path(__file__).resolve().parent / "golden"
FPS, FRAMES, SIDE = 10, 160, 26
TRAINING, VALIDATION = 6, 1  # videos
SMALL = (
    "data.annotations=annotations.json",
    "data.cache=null",
    "data.blocked=[]",
    "data.snippets=16",
    "data.workers=0",
    "detector.width=32",
    "detector.roi_size=8",
    "detector.hidden=16",
    "detector.head=16",
    "detector.max_duration=16",
    "training.detector_lr=2e-4",
    "training.batch_size=1",
    f"training.epochs={-(-STEPS // TRAINING)}",
    "training.precision=fp32",
    "inference.classifier=null",
    "device=cpu",
)
ON_VIDEOS = (
    "data.videos=videos",
    "data.frames=4",
    "training.detector_lr=2e-5",
    "training.encoder_lr=4e-6",
    "data.decode_size=[26, 26]",
    "data.crop=24",
    "encoder.name=tiny",
    "encoder.weights=null",
    "encoder.frozen_stages=0",
    "encoder.chunk_size=16",
    "encoder.channels_last=false",
    "detector.in_channels=48",
)
ON_FEATURES = ("data.features=features", "data.feature_views=1", "detector.in_channels=48")
IN_WINDOWS = ("training.epochs=3",)  # of 23 windows


def shrunk(name: str) -> Settings:
    """Return the settings of a preset for the generated data in the working directory."""
    whole = preset(name).data
    on = ON_FEATURES if whole.features is not None else ON_VIDEOS
    return preset(name, [*SMALL, *on, *(IN_WINDOWS if whole.window_stride else ())])


def make_data(root: Path, labels: tuple[str, ...]) -> None:
    """Write annotations, features and videos in which a bright square moves during actions."""
    draws, database = np.random.default_rng(0), {}
    (root / "videos").mkdir(parents=True)
    (root / "features").mkdir()
    for number in range(TRAINING + VALIDATION):
        name, actions, start = f"video_{number}", [], int(draws.integers(5, 30))
        frames = draws.integers(0, 64, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        features = draws.integers(-99, 100, (40, 48)).astype(np.float32) / 100
        while start + 20 < FRAMES:
            end, label = start + int(draws.integers(15, 45)), int(draws.integers(len(labels)))
            end = min(end, FRAMES - 2)
            for frame in range(start, end):
                left = (2 * frame + 5 * label) % (SIDE - 8)
                frames[frame, 4 + label : 12 + label, left : left + 8] += 128
            features[start // 4 : end // 4, label] += 1
            segment = [start / FPS, end / FPS]
            actions.append({"segment": segment, "label": labels[label]})
            start = end + int(draws.integers(5, 40))
        subset = "training" if number < TRAINING else "validation"
        duration = FRAMES / FPS
        entry = {"subset": subset, "duration": duration, "frame": FRAMES, "annotations": actions}
        database[name] = entry
        np.save(root / "features" / f"{name}.npy", features)
        with av.open(str(root / "videos" / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(FPS))
            stream.width = stream.height = SIDE
            stream.pix_fmt = "bgr0"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))
    (root / "annotations.json").write_text(json.dumps({"database": database}))


def trajectory(name: str, root: Path, *, disturb: float = 0.0, count: int = 1) -> Trajectory:
    """Train a shrunk preset for its first steps on `count` threads, with its data below `root`.

    `disturb` is the size of random relative changes of all initial weights: it shows how far small
    differences grow.
    """
    records: list[dict] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with chdir(root):
            settings = shrunk(name)
            labels = settings.detector.classes or ("a", "b", "c")
            data = Path(f"data_{len(labels)}_{labels[0]}")
            if not data.exists():
                make_data(data, labels)
            with chdir(data), disturbed(disturb):
                train(settings, log=records.append, progress=False)
    finally:
        torch.set_num_threads(threads)
    return Trajectory.of(settings.model_dump(mode="json"), records)


@contextmanager
def disturbed(size: float) -> Iterator[None]:
    """Change the initial weights of trainings by random relative amounts of some size."""
    make = loop.System

    def changed(settings: Settings) -> loop.System:
        system, draws = make(settings), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in system.parameters():
                weight.mul_(1 + size * torch.randn(weight.shape, generator=draws))
        return system

    loop.System = changed if size else make
    try:
        yield
    finally:
        loop.System = make


def preset_values() -> dict[str, dict]:
    """Return the settings of all presets, as they are: name -> section.key -> value."""
    values = {name: flat(preset(name).model_dump(mode="json")) for name in PRESETS}
    return json.loads(json.dumps(values))


def named_constants() -> dict[str, str]:
    """Return every number, or collection of numbers, that a module names: file:NAME -> value."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for line in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(line, ast.Assign | ast.AnnAssign) or not _of_numbers(line.value):
                continue
            for name in line.targets if isinstance(line, ast.Assign) else [line.target]:
                if isinstance(name, ast.Name) and name.id.isupper():
                    place = f"{path.relative_to(PACKAGE).as_posix()}:{name.id}"
                    found[place] = ast.unparse(line.value)
    return found


def _of_numbers(value: ast.expr | None) -> bool:
    """Return True for an expression of numbers alone, such as `2 * 2**20` or `(0.5, 1)`."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, int | float) and not isinstance(value.value, bool)
    if isinstance(value, ast.BinOp):
        return _of_numbers(value.left) and _of_numbers(value.right)
    return isinstance(value, ast.Tuple) and all(map(_of_numbers, value.elts))


def main(names: list[str]) -> None:
    """Record trajectories, the settings of all presets, and the named constants."""
    write_json(GOLDEN / "settings.json", preset_values())
    write_json(GOLDEN / "constants.json", named_constants())
    if names == ["constants"]:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in names or PRESETS:
            print(write_trajectory(GOLDEN / f"{name}.json", trajectory(name, Path(scratch))))


if __name__ == "__main__":
    main(sys.argv[1:])
