"""What runs reached, in words: a record for JSON, and a table of several systems and seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etadlite.base.tables import aligned


@dataclass(frozen=True)
class RunReport:
    """What a run reached.

    Attributes:
        folder: the run directory.
        tiou: thresholds.
        per_tiou: mAP at each threshold, 0..1.
        average: their mean.
        peak_activation_bytes: the most that autograd held at once in a step.
        seconds_per_step: median.
        videos_per_second: of the training, with the time that it waited for videos.
        waiting_share: of that time, what was waiting.
        skipped_steps: steps without an update, as loss or gradient were not finite.
        unreadable_videos: of training and test, see `failed_videos.json`.
    """

    folder: Path
    tiou: tuple[float, ...]
    per_tiou: tuple[float, ...]
    average: float
    peak_activation_bytes: int
    seconds_per_step: float
    videos_per_second: float = float("nan")
    waiting_share: float = float("nan")
    skipped_steps: int = 0
    unreadable_videos: int = 0


def report_record(report: RunReport) -> dict[str, Any]:
    """A report as plain values, for JSON."""
    return {
        "average_mAP": report.average,
        "mAP": dict(zip(map(str, report.tiou), report.per_tiou, strict=True)),
        "peak_activation_bytes": report.peak_activation_bytes,
        "seconds_per_step": report.seconds_per_step,
        "videos_per_second": report.videos_per_second,
        "waiting_share": report.waiting_share,
        "skipped_steps": report.skipped_steps,
        "unreadable_videos": report.unreadable_videos,
    }


def read_report(folder: Path) -> RunReport:
    """The report of a finished run."""
    record = json.loads((folder / "report.json").read_text())
    return RunReport(
        folder,
        tuple(map(float, record["mAP"])),
        tuple(record["mAP"].values()),
        record["average_mAP"],
        record["peak_activation_bytes"],
        record["seconds_per_step"],
        record.get("videos_per_second", float("nan")),  # reports of older runs lack it
        record.get("waiting_share", float("nan")),
        record.get("skipped_steps", 0),
        record.get("unreadable_videos", 0),
    )


def table(reports: Mapping[str, Sequence[RunReport]]) -> str:
    """A table of reports; several reports of a system are its seeds: mean and deviation."""
    tiou = next(iter(reports.values()))[0].tiou
    head = ["system", *(f"mAP@{t:g}" for t in tiou), "average", "activations", "s/step"]
    rows = [head]
    for name, seeds in reports.items():
        columns = [[100 * r.per_tiou[i] for r in seeds] for i in range(len(tiou))]
        columns.append([100 * r.average for r in seeds])
        rows.append(
            [
                name,
                *(_mean_and_deviation(column) for column in columns),
                f"{max(r.peak_activation_bytes for r in seeds) / 2**20:.1f} MiB",
                f"{statistics.median(r.seconds_per_step for r in seeds):.3f}",
            ]
        )
    return aligned(rows)


def _mean_and_deviation(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
