"""Evaluation and post-processing against plain Python, in one run, and against their limits.

    python tests/benchmarks/evaluation.py [--json FILE] [--videos 4728] [--plain 100] [--repeats 3]

Random predictions near random ground truths, of ActivityNet-1.3's validation size by default:
4,728 videos, 200 predictions each, 200 classes, ten thresholds. The plain evaluation is run on a
part of the videos, on which both are timed; soft-NMS on all proposals of a video. What the plain
formulations give is compared before anything is timed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import plain
import torch
from report import machine, write_report

from etadlite.config import InferenceSettings
from etadlite.evaluation import mean_average_precision
from etadlite.evaluation.arrays import read_ground_truth, read_predictions
from etadlite.evaluation.average_precision import match_predictions, precision_of, rank_by_class
from etadlite.evaluation.error_analysis import breakdown
from etadlite.evaluation.recall import average_recall
from etadlite.inference.nms import soft_nms, soft_nms_picks
from etadlite.inference.postprocess import score_segments

TIOU = np.linspace(0.5, 0.95, 10)
PER_VIDEO = 200
CLASSES = 200
LIMITS = {  # seconds
    "mAP from dicts": 5.0,
    "mAP from files": 5.0,
    "post-processing of one video": 0.02,
    "post-processing, every cell a boundary": 0.02,
}


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
        near[:, 1] += 0.01  # none without length
        scores = rng.random(PER_VIDEO).round(6)
        results[f"v{v}"] = [
            {"segment": s, "label": labels[i % 2], "score": x}
            for i, (s, x) in enumerate(zip(near.tolist(), scores.tolist(), strict=True))
        ]
    return {"database": database}, {"results": results}


def seconds(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median wall-clock and processor seconds of a call, after one to warm up."""
    run()
    return median_of([clocked(run) for _ in range(repeats)])


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def median_of(times: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of wall-clock and processor seconds."""
    wall, processor = zip(*times, strict=True)
    return {"wall": median(wall), "processor": median(processor)}


def against(
    fast: Callable[[], object], slow: Callable[[], object], repeats: int
) -> dict[str, dict[str, float] | float]:
    """Seconds of both, taken in turns, and how many times as long the slow one needs."""
    fast()
    times = [(clocked(fast), clocked(slow)) for _ in range(repeats)]
    ours, theirs = (median_of(list(column)) for column in zip(*times, strict=True))
    ratio = median(theirs[1] / ours[1] for ours, theirs in times)
    return {"etadlite": ours, "plain": theirs, "ratio": ratio}


def compare_evaluation(videos: int, repeats: int) -> dict[str, dict[str, float] | float]:
    """mAP at ten thresholds of a part of the videos, by class, video and prediction in turn."""
    truth, guess = draw(videos)
    actions = {
        name: [(item["segment"], item["label"]) for item in entry["annotations"]]
        for name, entry in truth["database"].items()
    }
    guesses = {
        name: [(item["segment"], item["label"], item["score"]) for item in items]
        for name, items in guess["results"].items()
    }

    def ours() -> list[float]:
        settings = {"subset": "validation", "tiou": TIOU}
        return mean_average_precision(truth, guess, **settings).per_tiou.tolist()

    def step_by_step() -> list[float]:
        return [plain.mean_average_precision(actions, guesses, tiou) for tiou in TIOU]

    np.testing.assert_allclose(ours(), step_by_step(), rtol=0, atol=1e-12)
    return against(ours, step_by_step, repeats)


def compare_soft_nms(repeats: int) -> dict[str, dict[str, float] | float]:
    """Soft-NMS of all proposals of a video, exact: the same picks, the same scores."""
    proposals, iou, _ = draw_outputs()
    segments, scores = proposals.double(), iou.prod(1).double()
    rows, values = segments.tolist(), scores.tolist()
    settings = {"sigma": 0.35, "max_segments": 100}

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        return soft_nms_picks(segments, scores, **settings, length_margin=0.0)

    def step_by_step() -> tuple[list[int], list[float]]:
        return plain.soft_nms(rows, values, **settings)

    picks, kept = step_by_step()
    assert ours()[0].tolist() == picks
    np.testing.assert_allclose(ours()[1].numpy(), kept, rtol=1e-13, atol=0)
    return against(ours, step_by_step, repeats)


def draw_outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Proposals [8256, 2] in cells, their tIoU scores [8256, 2], boundaries [2, 128]."""
    draw_from = torch.Generator().manual_seed(0)
    proposals = torch.rand(8256, 2, generator=draw_from).sort(1).values * 128
    iou = torch.rand(8256, 2, generator=draw_from)
    return proposals, iou, torch.rand(2, 128, generator=draw_from)


def measure(videos: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds by name."""
    truth, guess = draw(videos)
    settings = {"subset": "validation", "tiou": TIOU}
    actions = read_ground_truth(truth, "validation")
    flat = read_predictions(guess, actions)

    def alone() -> None:
        ranked = rank_by_class(flat)
        holder = match_predictions(actions, ranked, TIOU)
        precision_of(actions.label, ranked.label, holder, len(actions.labels))

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

    proposals, iou, edge = draw_outputs()
    scores = iou.prod(1)
    for name, run in {
        "soft-NMS, 8,256 segments, top 100": lambda: soft_nms(
            proposals, scores, sigma=0.35, max_segments=100
        ),
        "soft-NMS with voting, top 200": lambda: soft_nms(
            proposals, scores, sigma=0.3, max_segments=200, voting=0.95
        ),
        "post-processing of one video": lambda: score_segments(
            proposals, iou, *edge, InferenceSettings()
        ),
        "post-processing, every cell a boundary": lambda: score_segments(
            proposals, iou, torch.ones(128), torch.ones(128), InferenceSettings()
        ),
    }.items():
        found[name] = seconds(run, 10 * repeats)
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Time evaluation and post-processing.")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--videos", type=int, default=4728)
    parser.add_argument("--plain", type=int, default=100, help="videos of the plain evaluation")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    part = f"mAP of {arguments.plain} videos, {arguments.plain * PER_VIDEO:,} predictions"
    compared = {
        part: compare_evaluation(arguments.plain, arguments.repeats),
        "soft-NMS, 8,256 segments, top 100": compare_soft_nms(arguments.repeats),
    }
    found = measure(arguments.videos, arguments.repeats)
    print(machine())
    print("etadlite s    plain s   ratio  (processor; medians)")
    for name, value in compared.items():
        ours, theirs = (value[side]["processor"] for side in ("etadlite", "plain"))
        print(f"{ours:10.4f} {theirs:10.4f} {value['ratio']:7.0f}  {name}")
    scale = arguments.videos / arguments.plain
    plainly = scale * compared[part]["plain"]["processor"]
    ratio = plainly / found["mAP from dicts"]["processor"]
    print(f"at {arguments.videos} videos the plain one takes {plainly:.0f} s by scale: {ratio:.0f}")
    print(f"\n{arguments.videos} videos, {arguments.videos * PER_VIDEO:,} predictions")
    print("    wall s  processor s  limit s")
    for name, value in found.items():
        limit = f"{LIMITS[name]:8.2f}" if name in LIMITS else " " * 8
        print(f"{value['wall']:10.4f} {value['processor']:12.4f} {limit}  {name}")
    sizes = {"videos": arguments.videos, "predictions": arguments.videos * PER_VIDEO}
    report = sizes | {"against_plain": compared, "seconds": found, "limits": LIMITS}
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()
