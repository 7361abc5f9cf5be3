"""Does the data keep up? Training on features as published and ours; decoding and the encoder.

    python tests/benchmarks/throughput.py [--json FILE] [--device cpu] [--steps 4] [--workers 2]

Features: training steps of `anet_tsp` at ActivityNet's sizes (batch 16, 495 proposals a video)
with their loader, in fp32 and in bf16 (`detector.precision`), against the published formulation in
the same run: fp32, torchvision's RoIAlign in each of three stages, and a loader as PyTorch makes
it. The three take turns.
Videos, 456x256 at 15 frames a second: frames a second that one loading process decodes, augments
and cuts for `e2e_anet_tsp`, against what the encoder's forward pass alone consumes; and decoding at
the target size against decoding at full size and resizing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from detector import as_published, seconds_of
from report import write_report
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from etadlite.config import Settings
from etadlite.data.datasets import Batch, VideoDataset, collate
from etadlite.data.snippets import snippet_frames
from etadlite.data.video import read_frames
from etadlite.encoders import R2Plus1D
from etadlite.model.chunks import encode_in_chunks
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.stickfigures.dataset import write_video
from etadlite.stickfigures.motion import plan_timeline
from etadlite.stickfigures.scene import TARGET, render
from etadlite.training.loop import loader, make_optimizer, open_split
from etadlite.training.step import train_step

CLIPS = 110
"""Features of ActivityNet's mean video: 117 s, one every 16 frames at 15 a second."""

SHORT_SIDE, LONG_SIDE = 256, 456
"""Of ActivityNet's videos as they are distributed, most of them 16:9."""


def write_data(folder: Path, videos: int) -> list[str]:
    """Feature files like TSP's with an annotation each; assignments that find them."""
    chance = np.random.default_rng(0)
    (folder / "features").mkdir()
    database = {}
    for number in range(videos):
        clips = int(chance.integers(CLIPS // 2, CLIPS * 3 // 2))
        duration, start = clips * 16 / 15, chance.uniform(0, clips / 2)
        segment = [start, start + clips / 3]
        database[f"video{number}"] = {
            "subset": "training",
            "duration": duration,
            "annotations": [{"segment": segment, "label": "action"}],
        }
        features = chance.standard_normal((clips, 512), dtype="float32")
        np.save(folder / "features" / f"v_video{number}.npy", features)
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return [
        f"data.annotations={folder / 'annotations.json'}",
        f"data.features={folder / 'features'}",
        "data.blocked=[]",
    ]


def plain_loader(settings: Settings) -> DataLoader:
    """A loader as PyTorch makes it, with the same processes, and draws that no seed rules."""
    data = open_split(settings, training=True)

    def seeded(samples: list) -> Batch:
        return collate([sample._replace(seed=number) for number, sample in enumerate(samples)])

    return DataLoader(
        data,
        settings.training.batch_size,
        shuffle=True,
        collate_fn=seeded,
        num_workers=settings.data.workers,
    )


def timed_steps(
    batches: Iterable[Batch], step: Callable[[Batch], object], count: int, device: str
) -> list[tuple[float, float]]:
    """Seconds of waiting and of working, for each step."""
    taken = []
    remaining = iter(batches)
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(remaining)
        given = time.perf_counter()
        step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append((given - asked, time.perf_counter() - given))
    return taken


def measure_features(device: str, steps: int, workers: int) -> dict[str, float]:
    """Videos a second, as published and ours in two precisions, and our shares of waiting."""
    with tempfile.TemporaryDirectory() as folder:
        changes = write_data(Path(folder), 64)
        changes += [f"device={device}", f"data.workers={workers}"]
        fp32 = preset("anet_tsp", changes)
        bf16 = fp32.changed(["detector.precision=bf16"])
        training = partial(loader, open_split(fp32, training=True), training=True)
        ways = {
            "published": (fp32, plain_loader(fp32), as_published),
            "fp32": (fp32, training(fp32), nullcontext),
            "bf16": (bf16, training(bf16), nullcontext),
        }
        endless = {
            name: chain.from_iterable(repeat(batches)) for name, (_, batches, _) in ways.items()
        }
        systems = {}
        for name, (settings, _, _) in ways.items():
            torch.manual_seed(0)
            system = System(settings).to(device)
            systems[name] = system, make_optimizer(system, settings.training)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(3):  # the first warms up
            for name, (settings, _, way) in ways.items():
                system, optimizer = systems[name]
                step = partial(train_step, system, optimizer=optimizer, settings=settings)
                with way():
                    found = timed_steps(endless[name], step, steps if turn else 1, device)
                taken[name] += found if turn else []
        data = open_split(fp32, training=True)
        started = time.perf_counter()
        for number in range(len(data)):
            data[number]
        alone = len(data) / (time.perf_counter() - started)
    size = fp32.training.batch_size
    rate = {name: size / median(map(sum, found)) for name, found in taken.items()}
    report = {f"videos_a_second_{name}": value for name, value in rate.items()}
    for name in ("fp32", "bf16"):
        report[f"ratio_{name}"] = rate[name] / rate["published"]
        waited, worked = (sum(column) for column in zip(*taken[name], strict=True))
        report[f"share_of_time_waiting_{name}"] = waited / (waited + worked)
    return report | {"videos_a_second_of_one_loading_process": alone}


def measure_videos(device: str, repeats: int, seconds: int) -> dict[str, float]:
    """Frames a second of decoding and of the encoder."""
    with tempfile.TemporaryDirectory() as folder:
        path, frames = Path(folder) / "video.mp4", 15 * seconds
        chance = np.random.default_rng(0)
        motion = plan_timeline(chance, frames, [(30, frames // 2, 0)])
        pictures = render(chance, motion, TARGET, SHORT_SIDE)
        write_video(path, (np.hstack([p, p[:, ::-1]])[:, :LONG_SIDE] for p in pictures))
        annotation = {"subset": "training", "duration": float(seconds), "annotations": []}
        (Path(folder) / "annotations.json").write_text(
            json.dumps({"database": {"video": annotation}})
        )
        settings = preset(
            "e2e_anet_tsp",
            [
                f"data.annotations={folder}/annotations.json",
                f"data.videos={folder}",
                "data.blocked=[]",
            ],
        ).data
        data = VideoDataset(settings, (), training=True)
        wanted = np.unique(snippet_frames(frames, settings.snippets, settings.frames, rule="ends"))
        size = settings.decode_size

        def resized_later() -> torch.Tensor:
            full = read_frames(path, wanted, (SHORT_SIDE, LONG_SIDE))
            return v2.functional.resize(full, list(size), antialias=False)

        encoder = R2Plus1D(34).to(device).eval()
        snippets = torch.randint(0, 256, (1, 4, 3, 16, 112, 112), dtype=torch.uint8, device=device)
        taken = seconds_of(
            {
                "sample": lambda: data[0],
                "target": lambda: read_frames(path, wanted, size),
                "full": resized_later,
                "encoder": lambda: encode_in_chunks(encoder, snippets, 4),
            },
            device,
            repeats,
        )
    shown = settings.snippets * settings.frames
    loaded, consumed = shown / taken["sample"], 64 / taken["encoder"]
    return {
        "frames_a_second_of_one_loading_process": loaded,
        "frames_a_second_of_the_encoder": consumed,
        "loading_processes_that_keep_up": float(np.ceil(consumed / loaded)),
        "decoded_frames_a_second": len(wanted) / taken["target"],
        "decoding_at_target_size_over_resizing": taken["full"] / taken["target"],
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Throughput of data against computation.")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="length of the video")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "features": measure_features(arguments.device, arguments.steps, arguments.workers),
        "videos": measure_videos(arguments.device, arguments.repeats, arguments.seconds),
    }
    for name, values in found.items():
        for what, value in values.items():
            print(f"{name}: {what.replace('_', ' ')}: {value:.3g}")
    write_report(arguments.json, found)


if __name__ == "__main__":
    main()
