"""How long evaluation and post-processing take: prints seconds, writes JSON with --json.

    python tests/benchmarks/evaluation.py [--json FILE] [--videos 4728] [--repeats 3]

Random predictions near random ground truths, of ActivityNet-1.3's validation size by default:
4,728 videos, 200 predictions each, 200 classes, ten thresholds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from etadlite.evaluation import average_recall, breakdown, mean_average_precision
from etadlite.evaluation.average_precision import match, precision_of, rank_by_class
from etadlite.evaluation.tables import read_ground_truth, read_predictions
from etadlite.inference.nms import soft_nms
from etadlite.inference.postprocess import score_segments

TIOU = np.linspace(0.5, 0.95, 10)
PER_VIDEO = 200
CLASSES = 200


def draw(videos: int) -> tuple[dict, dict]:
    """Ground truth with one or two actions a video; half of the predictions lie near one."""
    rng = np.random.default_rng(0)
    database, results = {}, {}
    own = rng.integers(0, CLASSES, videos)
    for v in range(videos):
        labels = [f"class{c}" for c in (own[v], own[rng.integers(videos)])]
        starts = rng.uniform(0, 100, rng.integers(1, 4))
        actions = [[s, s + rng.uniform(1, 80)] for s in starts]
        database[f"v{v}"] = {
            "subset": "validation",
            "duration": 200.0,
            "annotations": [{"segment": s, "label": labels[0]} for s in actions],
        }
        base = np.array(actions)[rng.integers(0, len(actions), PER_VIDEO)]
        near = np.sort(base + rng.normal(0, 8, base.shape), axis=1).round(3)
        scores = rng.random(PER_VIDEO).round(6)
        results[f"v{v}"] = [
            {"segment": s, "label": labels[i % 2], "score": x}
            for i, (s, x) in enumerate(zip(near.tolist(), scores.tolist(), strict=True))
        ]
    return {"database": database}, {"results": results}


def seconds(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median wall-clock and processor seconds of a call, after one to warm up."""
    run()
    wall, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"wall": median(wall), "processor": median(processor)}


def measure(videos: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds by name."""
    truth, guess = draw(videos)
    settings = {"subset": "validation", "tiou": TIOU}
    table = read_ground_truth(truth, "validation")
    flat = read_predictions(guess, table, subset="validation")

    def alone() -> None:
        order = rank_by_class(flat)
        precision_of(table, flat, order, match(table, flat, order, TIOU))

    found = {
        "mAP, matching and areas alone": seconds(alone, repeats),
        "mAP from dicts": seconds(
            lambda: mean_average_precision(truth, guess, **settings), repeats
        ),
        "recall from dicts": seconds(lambda: average_recall(truth, guess, **settings), repeats),
        "breakdown from dicts": seconds(lambda: breakdown(truth, guess, **settings), repeats),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "truth.json", Path(folder) / "guess.json"
        for file, content in zip(files, (truth, guess), strict=True):
            file.write_text(json.dumps(content))
        found["mAP from files"] = seconds(
            lambda: mean_average_precision(*files, **settings), repeats
        )

    draw_from = torch.Generator().manual_seed(0)
    proposals = torch.rand(8256, 2, generator=draw_from).sort(1).values * 128
    iou = torch.rand(8256, 2, generator=draw_from)
    edge = torch.rand(2, 128, generator=draw_from)
    scores = iou.prod(1)
    for name, run in {
        "soft-NMS, 8,256 segments, top 100": lambda: soft_nms(
            proposals, scores, sigma=0.35, max_segments=100
        ),
        "soft-NMS with voting, top 200": lambda: soft_nms(
            proposals, scores, sigma=0.3, max_segments=200, voting=0.95
        ),
        "post-processing of one video": lambda: score_segments(proposals, iou, *edge),
        "post-processing, every cell a boundary": lambda: score_segments(
            proposals, iou, torch.ones(128), torch.ones(128)
        ),
    }.items():
        found[name] = seconds(run, 10 * repeats)
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Time evaluation and post-processing.")
    parser.add_argument("--json", type=Path, help="write the seconds to this file")
    parser.add_argument("--videos", type=int, default=4728)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found = measure(arguments.videos, arguments.repeats)
    print(f"{arguments.videos} videos, {arguments.videos * PER_VIDEO:,} predictions")
    print("wall s  processor s")
    for name, value in found.items():
        print(f"{value['wall']:6.4f}  {value['processor']:6.4f}  {name}")
    if arguments.json:
        report = {
            "videos": arguments.videos,
            "predictions": arguments.videos * PER_VIDEO,
            "threads": torch.get_num_threads(),
            "seconds": found,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
