"""The numbers of a finished run: one class, its JSON file, and a table of several runs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etadlite.base.errors import damage_named
from etadlite.base.files import read_json
from etadlite.base.tables import aligned


@dataclass(frozen=True)
class RunReport:
    """What a run reached; the defaults stand for numbers that older reports lack."""

    folder: Path  # the run directory
    tiou: tuple[float, ...]  # thresholds
    per_tiou: tuple[float, ...]  # mAP at each threshold, 0..1
    average: float  # the mean of `per_tiou`
    peak_activation_bytes: int  # the most that autograd held at once in a step
    seconds_per_step: float  # median
    videos_per_second: float = float("nan")  # including the time that training waited for videos
    waiting_share: float = float("nan")  # share of that time that was waiting
    skipped_steps: int = 0  # steps without an update: loss or gradient were not finite
    unreadable_videos: int = 0  # of training and test, in `failed_videos.json`


def report_record(report: RunReport) -> dict[str, Any]:
    """Return a report as plain values, as `report.json` holds them."""
    record = asdict(report)
    del record["folder"]
    scores = zip(map(str, record.pop("tiou")), record.pop("per_tiou"), strict=True)
    return {"average_mAP": record.pop("average"), "mAP": dict(scores)} | record


def read_report(folder: Path) -> RunReport:
    """Read the report of a finished run.

    Raises:
        InputError: the folder has no readable report.
    """
    path, remedy = folder / "report.json", "delete it, and resume the run"
    record = read_json(path, "report of a run", remedy)
    with damage_named(f"{path} is no report of a run", remedy):
        scores = record.pop("mAP")
        average = record.pop("average_mAP")
        tiou, per_tiou = tuple(map(float, scores)), tuple(map(float, scores.values()))
        return RunReport(folder, tiou, per_tiou, float(average), **record)


def results_table(reports: Mapping[str, Sequence[RunReport]]) -> str:
    """Return a table with a line per system.

    Several reports of a system are those of its seeds: mAP is their mean and standard deviation,
    activations are their maximum, seconds their median.
    """
    tiou = next(iter(reports.values()))[0].tiou
    rows = [["system", *(f"mAP@{t:g}" for t in tiou), "average", "activations", "s/step"]]
    for name, seeds in reports.items():
        scores = [[100 * score for score in (*r.per_tiou, r.average)] for r in seeds]
        memory = max(r.peak_activation_bytes for r in seeds) / 2**20
        seconds = statistics.median(r.seconds_per_step for r in seeds)
        means = map(_mean_and_deviation, zip(*scores, strict=True))
        rows.append([name, *means, f"{memory:.1f} MiB", f"{seconds:.3f}"])
    return aligned(rows)


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
